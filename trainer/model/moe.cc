// Routed experts as grouped products over received rows; the shared experts compute while rows travel.
#include "trainer/model/moe.h"

namespace shoestring {

ExchangeShape MakeExchangeShape(const ModelShape& s) { return {s.tokens(), s.chosen, s.experts, s.experts / s.groups}; }

void VisitMoeWeights(const ModelShape& shape, const std::string& prefix, MoeWeights& weights, WeightVisitor visit) {
  VisitRouterWeights(prefix, weights.router, visit);
  visit(prefix + "experts.gate_up_proj", 0, weights.gate_up);
  visit(prefix + "experts.down_proj", 0, weights.down);
  if (shape.shared_ffn > 0) VisitDenseMlpWeights(prefix + "shared_experts.", weights.shared, visit);
}

MoeSaved AllocateMoeSaved(const ModelShape& s, const RecomputeOptions& recompute, const ExpertExchange& exchange,
                          Arena& arena) {
  const int64_t rows = exchange.max_rows();
  MoeSaved saved;
  saved.router = AllocateRouterSaved(s, arena);
  if (s.shared_ffn > 0) saved.shared = AllocateDenseMlpSaved(s, recompute, s.shared_ffn, arena);
  saved.plan = exchange.AllocatePlan(arena);
  saved.rows = arena.Allocate(Purpose::kActivations, "moe.rows", s.act, rows, s.hidden);
  saved.row_weight = arena.Allocate(Purpose::kActivations, "moe.row_weight", DType::kF32, 1, rows);
  saved.gate_up = arena.Allocate(Purpose::kActivations, "moe.gate_up", s.act, rows, 2 * s.expert_ffn);
  if (!recompute.swiglu) {
    saved.hidden = arena.Allocate(Purpose::kActivations, "moe.hidden", s.act, rows, s.expert_ffn);
  }
  return saved;
}

MoePending AllocateMoePending(const ModelShape& s, const ExpertExchange& exchange, Arena& arena) {
  const int64_t rows = exchange.max_rows();
  MoePending pending;
  pending.router = AllocateRouterPending(s, arena);
  if (s.shared_ffn > 0) pending.shared = AllocateDenseMlpPending(s, s.shared_ffn, arena);
  pending.d_results = arena.Allocate(Purpose::kPending, "moe.d_results", s.act, rows, s.hidden);
  pending.d_gate_up = arena.Allocate(Purpose::kPending, "moe.d_gate_up", s.act, rows, 2 * s.expert_ffn);
  return pending;
}

MoeWorkspace AllocateMoeWorkspace(const ModelShape& s, const ExpertExchange& exchange, Arena& arena) {
  const int64_t rows = exchange.max_rows();
  MoeWorkspace workspace;
  workspace.base = arena.Allocate(Purpose::kExchange, "moe.base", s.act, s.tokens(), s.hidden);
  workspace.rows = arena.Allocate(Purpose::kExchange, "moe.travelling_rows", s.act, rows, s.hidden);
  workspace.row_weight = arena.Allocate(Purpose::kExchange, "moe.travelling_weight", DType::kF32, 1, rows);
  return workspace;
}

void MoeForwardDispatch(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& w, ConstView x,
                        ConstView u, const RouterStatistics& statistics, const MoeSaved& saved,
                        const MoeWorkspace& workspace) {
  RouterForward(ctx, w.router, x, statistics, saved.router);
  exchange.BeginDispatch(ctx.backend, ctx.stream, *saved.plan,
                         {x, saved.router.experts, saved.router.weights, saved.rows, saved.row_weight});
  if (ctx.shape.shared_ffn == 0) return;
  DenseMlpForward(ctx, w.shared, x, saved.shared, workspace.base);
  ctx.backend.Add(ctx.stream, u, workspace.base, workspace.base);
}

void MoeForwardExperts(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& w,
                       const MoeSaved& saved, const MoeWorkspace& workspace) {
  ArenaScope scope(ctx.scratch);
  exchange.AwaitDispatch(ctx.backend, ctx.stream, *saved.plan);
  const Segments segments = exchange.segments(*saved.plan);
  const View hidden = ctx.KeptOrScratch(saved.hidden, "moe.hidden", segments.max_rows, ctx.shape.expert_ffn);
  ctx.backend.GroupedGemm(ctx.stream, GemmLayout::kNT, segments, saved.rows, w.gate_up, saved.gate_up);
  ctx.backend.SwiGlu(ctx.stream, {saved.gate_up, saved.row_weight, segments.offsets}, hidden);
  ctx.backend.GroupedGemm(ctx.stream, GemmLayout::kNT, segments, hidden, w.down, workspace.rows);
  exchange.BeginCombine(ctx.backend, ctx.stream, *saved.plan, workspace.rows);
}

void MoeForwardCombine(const LayerContext& ctx, const ExpertExchange& exchange, ConstView u, const MoeSaved& saved,
                       const MoeWorkspace& workspace, View out) {
  const ConstView base = ctx.shape.shared_ffn > 0 ? ConstView(workspace.base) : u;
  exchange.AwaitCombine(ctx.backend, ctx.stream, *saved.plan, base, out);
}

void MoeBackwardCombine(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& w,
                        const MoeSaved& saved, const MoePending& pending, ConstView d_out,
                        const MoeWorkspace& workspace) {
  exchange.BeginCombineBackward(ctx.backend, ctx.stream, *saved.plan, d_out, pending.d_results);
  if (ctx.shape.shared_ffn == 0) return;
  DenseMlpBackwardInput(ctx, w.shared, saved.shared, pending.shared, d_out, workspace.base);
}

void MoeBackwardExperts(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& w,
                        const MoeSaved& saved, const MoePending& pending, const MoeWorkspace& workspace) {
  ArenaScope scope(ctx.scratch);
  exchange.AwaitCombineBackward(ctx.backend, ctx.stream, *saved.plan);
  const Segments segments = exchange.segments(*saved.plan);
  const View d_hidden = ctx.Scratch("moe.d_hidden", ctx.shape.act, segments.max_rows, ctx.shape.expert_ffn);
  ctx.backend.GroupedGemm(ctx.stream, GemmLayout::kNN, segments, pending.d_results, w.down, d_hidden);
  ctx.backend.SwiGluBackward(ctx.stream, {saved.gate_up, saved.row_weight, segments.offsets}, d_hidden,
                             pending.d_gate_up, workspace.row_weight);
  ctx.backend.GroupedGemm(ctx.stream, GemmLayout::kNN, segments, pending.d_gate_up, w.gate_up, workspace.rows);
  exchange.BeginDispatchBackward(ctx.backend, ctx.stream, *saved.plan, workspace.rows, workspace.row_weight);
}

void MoeBackwardDispatch(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& w,
                         double balance_scale, const MoeSaved& saved, const MoePending& pending,
                         const MoeWorkspace& workspace, View dx) {
  const ModelShape& s = ctx.shape;
  ArenaScope scope(ctx.scratch);
  const View d_weights = ctx.Scratch("moe.d_weights", DType::kF32, s.tokens(), s.chosen);
  exchange.AwaitWeightGradients(ctx.backend, ctx.stream, *saved.plan, d_weights);
  const bool has_shared = s.shared_ffn > 0;
  const View by_router = has_shared ? ctx.Scratch("moe.dx_router", s.act, s.tokens(), s.hidden) : workspace.base;
  RouterBackwardInput(ctx, w.router, balance_scale, saved.router, pending.router, d_weights, by_router);
  if (has_shared) ctx.backend.Add(ctx.stream, workspace.base, by_router, workspace.base);
  exchange.AwaitDispatchBackward(ctx.backend, ctx.stream, *saved.plan, workspace.base, dx);
}

void MoeBackwardWeight(const LayerContext& ctx, const ExpertExchange& exchange, ConstView x, const MoeSaved& saved,
                       const MoePending& pending, ConstView d_out, const MoeWeights& grads) {
  ArenaScope scope(ctx.scratch);
  RouterBackwardWeight(ctx, x, pending.router, grads.router);
  if (ctx.shape.shared_ffn > 0) {
    DenseMlpBackwardWeight(ctx, x, saved.shared, pending.shared, d_out, grads.shared);
  }
  const Segments segments = exchange.segments(*saved.plan);
  const View hidden = ctx.KeptOrScratch(saved.hidden, "moe.hidden", segments.max_rows, ctx.shape.expert_ffn);
  if (!saved.hidden) ctx.backend.SwiGlu(ctx.stream, {saved.gate_up, saved.row_weight, segments.offsets}, hidden);
  ctx.backend.GroupedGemm(ctx.stream, GemmLayout::kTN, segments, pending.d_results, hidden, grads.down,
                          /*accumulate=*/true);
  ctx.backend.GroupedGemm(ctx.stream, GemmLayout::kTN, segments, pending.d_gate_up, saved.rows, grads.gate_up,
                          /*accumulate=*/true);
}

OperationCost MoeCost(const ModelShape& s, const RecomputeOptions& recompute, const ExpertExchange& exchange) {
  OperationCost cost = RouterCost(s);
  if (s.shared_ffn > 0) cost += DenseMlpCost(s, recompute, s.shared_ffn);
  const int64_t rows = exchange.max_rows();
  AddLinear(cost, rows, 2 * s.expert_ffn, s.hidden);
  AddLinear(cost, rows, s.hidden, s.expert_ffn);
  cost.dispatch_bytes = s.tokens() * s.chosen * (s.hidden * SizeOf(s.act) + SizeOf(DType::kF32));
  cost.combine_bytes = s.tokens() * s.chosen * s.hidden * SizeOf(s.act);
  Arena measure = Arena::Measuring();
  AllocateMoeSaved(s, recompute, exchange, measure);
  AllocateMoePending(s, exchange, measure);
  // The parts' own bytes are in these figures already. Plans are kept as long as activations.
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations) + measure.high_water_bytes(Purpose::kExchange);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
