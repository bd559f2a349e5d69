// The end of the model: a norm, the output projection and the cross-entropy; also the end of each MTP module.
#pragma once

#include <string>

#include "kernels/arena.h"
#include "trainer/model/context.h"
#include "trainer/model/cost.h"
#include "trainer/model/weight_visitor.h"

namespace shoestring {

// Also the type of their gradients (f32). `matrix` is shared by all heads; each use has a gradient of its own.
struct HeadWeights {
  View norm;    // [1, D] f32 gain
  View matrix;  // [V, D]
};
// `norm_name`: "model.norm.weight", or that of an MTP module; `use`: which use of lm_head.weight this is.
void VisitHeadWeights(const std::string& norm_name, int use, HeadWeights& weights, WeightVisitor visit);

struct HeadSaved {
  View x;            // [T, D] act: hidden state before the norm; whoever computes it writes here
  View inverse_rms;  // [1, T] f32
  View normed;       // [T, D] act; empty when norms are recomputed
  View d_logits;     // [T, V] act: gradient of the scaled loss, computed in forward so that logits need not be kept
};
HeadSaved AllocateHeadSaved(const ModelShape& shape, const RecomputeOptions& recompute, Arena& arena);

struct HeadPending {
  View d_normed;  // [T, D] act
};
HeadPending AllocateHeadPending(const ModelShape& shape, Arena& arena);

// targets [1, T] i32 (-1: none); loss [1, T] f32: cross-entropy of each token, not scaled.
// saved.d_logits = loss_scale * gradient.
void HeadForward(const LayerContext& ctx, const HeadWeights& weights, ConstView targets, double loss_scale,
                 const HeadSaved& saved, View loss);
// The loss alone, no gradient.
void HeadLoss(const LayerContext& ctx, const HeadWeights& weights, ConstView targets, const HeadSaved& saved,
              View loss);
// logits [1, V] f32 of one row of saved.x.
void HeadLogits(const LayerContext& ctx, const HeadWeights& weights, int64_t row, const HeadSaved& saved, View logits);
// dx [T, D] act = add (or 0) + gradient of saved.x; may alias add.
void HeadBackwardInput(const LayerContext& ctx, const HeadWeights& weights, const HeadSaved& saved,
                       const HeadPending& pending, ConstView add, View dx);
void HeadBackwardWeight(const LayerContext& ctx, const HeadWeights& weights, const HeadSaved& saved,
                        const HeadPending& pending, const HeadWeights& grads);
OperationCost HeadCost(const ModelShape& shape, const RecomputeOptions& recompute);

}  // namespace shoestring
