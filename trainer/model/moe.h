// A mixture-of-experts layer: router, shared experts, routed experts behind an exchange (V3 report, section 2.1.2).
#pragma once

#include <memory>
#include <string>

#include "parallel/expert_exchange.h"
#include "trainer/model/mlp.h"
#include "trainer/model/router.h"

namespace shoestring {

ExchangeShape MakeExchangeShape(const ModelShape& shape);

// Also the type of their gradients (f32). E' experts of this rank, F their intermediate width.
struct MoeWeights {
  RouterWeights router;
  MlpWeights shared;   // all shared experts as one; empty without
  MlpWeights experts;  // gate_up [E'*2F, D], down [E'*D, F]
};
// `prefix` ends in "mlp.".
void VisitMoeWeights(const ModelShape& shape, const std::string& prefix, MoeWeights& weights, WeightVisitor visit);

// R: ExpertExchange::max_rows().
struct MoeSaved {
  RouterSaved router;
  MlpSaved shared;
  std::unique_ptr<ExpertExchange::Plan> plan;
  MutableOperand
      rows;         // [R, D]: received tokens: as they came if they came quantised, else as the recipe caches inputs
  View row_weight;  // [1, R] f32: their gate weights
  MlpSaved experts;
};
MoeSaved AllocateMoeSaved(const ModelShape& shape, const RecomputeOptions& recompute, const ExpertExchange& exchange,
                          Arena& arena);

struct MoePending {
  RouterPending router;
  MlpPending shared;
  MutableOperand d_results;  // [R, D]: gradient of the experts' results, as it came
  MlpPending experts;
};
MoePending AllocateMoePending(const ModelShape& shape, const ExpertExchange& exchange, Arena& arena);

// What lives from one part of a layer to the next, in one direction; one layer at a time uses it.
struct MoeWorkspace {
  View base;            // [T, D] act: forward: u + shared experts; backward: gradients by shared experts and router
  MutableOperand sent;  // [T, D]: what travels to experts, if that is quantised: tokens, or gradients; else empty
  View rows;            // [R, D] act: forward: tokens that came in act, then results; backward: gradients of tokens
  View row_weight;      // [1, R] f32: backward: gradients of their gate weights
};
// `sent`: the format in which rows travel to experts in this direction.
MoeWorkspace AllocateMoeWorkspace(const ModelShape& shape, const OperandFormat& sent, const ExpertExchange& exchange,
                                  Arena& arena);

// Forward, in three parts. x [T, D] act: normed input; u [T, D] act: residual stream.
// out = round(round(u + shared(x)) + routed(x)), rounded to act, routed as CombineRows sums it.
void MoeForwardDispatch(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& weights, ConstView x,
                        ConstView u, const RouterStatistics& statistics, const MoeSaved& saved,
                        const MoeWorkspace& workspace);
void MoeForwardExperts(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& weights,
                       const MoeSaved& saved, const MoeWorkspace& workspace);
void MoeForwardCombine(const LayerContext& ctx, const ExpertExchange& exchange, ConstView u, const MoeSaved& saved,
                       const MoeWorkspace& workspace, View out);

// Input gradients, in three parts. d_out, dx: [T, D] act; dx does not hold the residual path.
// dx = round(round(shared + router) + routed).
void MoeBackwardCombine(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& weights,
                        const MoeSaved& saved, const MoePending& pending, ConstView d_out,
                        const MoeWorkspace& workspace);
void MoeBackwardExperts(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& weights,
                        const MoeSaved& saved, const MoePending& pending, const MoeWorkspace& workspace);
void MoeBackwardDispatch(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& weights,
                         double balance_scale, const MoeSaved& saved, const MoePending& pending,
                         const MoeWorkspace& workspace, View dx);

// Adds to the gradients of router and shared experts; those of the experts are expert_sums.h's. x: as in forward;
// d_out: as in MoeBackwardCombine.
void MoeBackwardWeight(const LayerContext& ctx, ConstView x, const MoeSaved& saved, const MoePending& pending,
                       ConstView d_out, const MoeWeights& grads);
// Products of routed experts at the T*K rows that a micro-batch sends to experts: what a rank's experts receive depends
// on the routing, over all ranks it is as much.
OperationCost MoeCost(const ModelShape& shape, const RecomputeOptions& recompute, const ExpertExchange& exchange);

}  // namespace shoestring
