// Which experts a token goes to, with which weight, and the sequence-wise balance loss (V3 report, section 2.1.2).
#pragma once

#include <string>

#include "kernels/arena.h"
#include "trainer/model/context.h"
#include "trainer/model/cost.h"
#include "trainer/model/weight_visitor.h"

namespace shoestring {

struct RouterWeights {
  View gate;  // [E, D] act; gradient f32
  View bias;  // [1, E] f32: steers the choice only; its rule is not a gradient's, so gradients have no such view
};
// `prefix` ends in "mlp.".
void VisitRouterWeights(const std::string& prefix, RouterWeights& weights, WeightVisitor visit);

struct RouterSaved {
  View scores;    // [T, E] f32: affinities
  View experts;   // [T, K] i32, ascending
  View weights;   // [T, K] f32
  View d_scores;  // [T, E] f32: gradient of the balance loss, known in forward already
};
RouterSaved AllocateRouterSaved(const ModelShape& shape, Arena& arena);

struct RouterPending {
  View d_logits;  // [T, E] act
};
RouterPending AllocateRouterPending(const ModelShape& shape, Arena& arena);

// What a router adds to besides its output.
struct RouterStatistics {
  View counts;               // [1, E] i64; accumulated: tokens that chose each expert
  double balance_scale = 0;  // alpha / sequences of the global batch; 0: no balance loss, no gradient of it
  View balance_loss;         // [1, sequences] f32; assigned when balance_scale is not 0
};

// x [T, D] act. Logits are f32, from operands in act.
void RouterForward(const LayerContext& ctx, const RouterWeights& weights, ConstView x,
                   const RouterStatistics& statistics, const RouterSaved& saved);
// d_weights [T, K] f32: gradient of saved.weights. dx [T, D] act, assigned: the router's share of x's gradient.
void RouterBackwardInput(const LayerContext& ctx, const RouterWeights& weights, double balance_scale,
                         const RouterSaved& saved, const RouterPending& pending, ConstView d_weights, View dx);
void RouterBackwardWeight(const LayerContext& ctx, ConstView x, const RouterPending& pending,
                          const RouterWeights& grads);
OperationCost RouterCost(const ModelShape& shape);

}  // namespace shoestring
