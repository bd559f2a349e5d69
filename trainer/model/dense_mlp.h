// A SwiGLU feed-forward layer: the dense layers', and all shared experts of an MoE layer as one.
#pragma once

#include <string>

#include "kernels/arena.h"
#include "trainer/model/context.h"
#include "trainer/model/cost.h"
#include "trainer/model/weight_visitor.h"

namespace shoestring {

// Also the type of their gradients (f32). F is the intermediate width.
struct DenseMlpWeights {
  View gate_up;  // [2F, D]: gate rows, then up rows
  View down;     // [D, F]
};
// prefix: up to and with the last dot, such as "model.layers.0.mlp.".
void VisitDenseMlpWeights(const std::string& prefix, DenseMlpWeights& weights, WeightVisitor visit);

struct DenseMlpSaved {
  View gate_up;  // [T, 2F] act
  View hidden;   // [T, F] act; empty when SwiGLU is recomputed
};
DenseMlpSaved AllocateDenseMlpSaved(const ModelShape& shape, const RecomputeOptions& recompute, int64_t width,
                                    Arena& arena);

struct DenseMlpPending {
  View d_gate_up;  // [T, 2F] act
};
DenseMlpPending AllocateDenseMlpPending(const ModelShape& shape, int64_t width, Arena& arena);

// x, out, d_out, dx: [T, D] act. BackwardWeight reads the x of forward and the d_out of BackwardInput again.
void DenseMlpForward(const LayerContext& ctx, const DenseMlpWeights& weights, ConstView x, const DenseMlpSaved& saved,
                     View out);
void DenseMlpBackwardInput(const LayerContext& ctx, const DenseMlpWeights& weights, const DenseMlpSaved& saved,
                           const DenseMlpPending& pending, ConstView d_out, View dx);
void DenseMlpBackwardWeight(const LayerContext& ctx, ConstView x, const DenseMlpSaved& saved,
                            const DenseMlpPending& pending, ConstView d_out, const DenseMlpWeights& grads);
OperationCost DenseMlpCost(const ModelShape& shape, const RecomputeOptions& recompute, int64_t width);

}  // namespace shoestring
