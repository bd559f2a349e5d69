// A SwiGLU feed-forward layer: a dense layer's, all shared experts of an MoE layer as one, or its routed experts as a
// stack.
#pragma once

#include <string>

#include "kernels/arena.h"
#include "trainer/model/context.h"
#include "trainer/model/cost.h"
#include "trainer/model/weight_visitor.h"

namespace shoestring {

// Also the type of their gradients (f32). F is the intermediate width; of routed experts, a stack of E' such matrices.
struct MlpWeights {
  MutableOperand gate_up;  // [2F, D]: gate rows, then up rows
  MutableOperand down;     // [D, F]
};
// prefix: up to and with the last dot, such as "model.layers.0.mlp.".
void VisitMlpWeights(const std::string& prefix, MlpWeights& weights, WeightVisitor visit);

// Which rows there are: R = T without segments.
struct MlpRows {
  Segments segments;  // of routed experts
  View weight;        // [1, R] f32: gate weight of each row, which multiplies inside SwiGLU; or empty (1)
  View d_weight;      // [1, R] f32: its gradient, assigned by BackwardInput; or empty
};

struct MlpSaved {
  MutableOperand gate_up;  // [R, 2F]: act, or as the recipe caches inputs of SwiGLU
  MutableOperand hidden;   // [R, F]: as the recipe caches inputs of linear layers; empty when SwiGLU is recomputed
};
// `gate_up`: the format in which backward knows the input of SwiGLU.
MlpSaved AllocateMlpSaved(const ModelShape& shape, const RecomputeOptions& recompute, const OperandFormat& gate_up,
                          int64_t rows, int64_t width, Arena& arena);

struct MlpPending {
  View d_gate_up;  // [R, 2F] act
};
MlpPending AllocateMlpPending(const ModelShape& shape, int64_t rows, int64_t width, Arena& arena);

// x, d_out: [R, D] act or quantised as they came; out, dx: [R, D] act. BackwardWeight reads the x of forward as
// AsCached (linear.h) has it, and the d_out of BackwardInput again.
void MlpForward(const LayerContext& ctx, const MlpWeights& weights, const Operand& x, const MlpSaved& saved, View out,
                const MlpRows& rows = {});
void MlpBackwardInput(const LayerContext& ctx, const MlpWeights& weights, const MlpSaved& saved,
                      const MlpPending& pending, const Operand& d_out, View dx, const MlpRows& rows = {});
void MlpBackwardWeight(const LayerContext& ctx, const Operand& x, const MlpSaved& saved, const MlpPending& pending,
                       const Operand& d_out, const MlpWeights& grads, const MlpRows& rows = {});
OperationCost MlpCost(const ModelShape& shape, const RecomputeOptions& recompute, const OperandFormat& gate_up,
                      int64_t width);

}  // namespace shoestring
