// Routed experts as grouped products over received rows; the shared experts compute while rows travel.
#include "trainer/model/moe.h"

#include "trainer/model/linear.h"

namespace shoestring {
namespace {

MlpRows ExpertRows(const ExpertExchange& exchange, const MoeSaved& saved, const MoeWorkspace* workspace) {
  return {exchange.segments(*saved.plan), saved.row_weight, workspace == nullptr ? View() : workspace->row_weight};
}

// x [T, D] act as it travels.
Operand Sent(const LayerContext& ctx, ConstView x, const MoeWorkspace& workspace) {
  if (!workspace.sent) return x;
  ctx.backend.Quantize(ctx.stream, {x, workspace.sent, /*stack=*/1, /*segments=*/{}});
  return workspace.sent;
}

// Where tokens arrive: where they are kept, if they are kept as they come.
MutableOperand Arrival(const LayerContext& ctx, const MoeSaved& saved, const MoeWorkspace& workspace) {
  const bool kept_as_they_come = ctx.shape.formats.dispatch.quantised() || !saved.rows.quantised();
  return kept_as_they_come ? saved.rows : MutableOperand(workspace.rows);
}

}  // namespace

ExchangeShape MakeExchangeShape(const ModelShape& s) { return {s.tokens(), s.chosen, s.experts, s.experts / s.groups}; }

void VisitMoeWeights(const ModelShape& shape, const std::string& prefix, MoeWeights& weights, WeightVisitor visit) {
  VisitRouterWeights(prefix, weights.router, visit);
  visit(prefix + "experts.gate_up_proj", 0, weights.experts.gate_up);
  visit(prefix + "experts.down_proj", 0, weights.experts.down);
  if (shape.shared_ffn > 0) VisitMlpWeights(prefix + "shared_experts.", weights.shared, visit);
}

MoeSaved AllocateMoeSaved(const ModelShape& s, const RecomputeOptions& recompute, const ExpertExchange& exchange,
                          Arena& arena) {
  const int64_t rows = exchange.max_rows();
  const OperandFormat& gate_up = s.formats.cached_swiglu_input;
  const OperandFormat& came = s.formats.dispatch.quantised() ? s.formats.dispatch : s.formats.cached_linear_input;
  MoeSaved saved;
  saved.router = AllocateRouterSaved(s, arena);
  if (s.shared_ffn > 0) saved.shared = AllocateMlpSaved(s, recompute, gate_up, s.tokens(), s.shared_ffn, arena);
  saved.plan = exchange.AllocatePlan(arena);
  saved.rows = AllocateOperand(arena, Purpose::kActivations, "moe.rows", came, rows, s.hidden);
  saved.row_weight = arena.Allocate(Purpose::kActivations, "moe.row_weight", DType::kF32, 1, rows);
  saved.experts = AllocateMlpSaved(s, recompute, gate_up, rows, s.expert_ffn, arena);
  return saved;
}

MoePending AllocateMoePending(const ModelShape& s, const ExpertExchange& exchange, Arena& arena) {
  const int64_t rows = exchange.max_rows();
  MoePending pending;
  pending.router = AllocateRouterPending(s, arena);
  if (s.shared_ffn > 0) pending.shared = AllocateMlpPending(s, s.tokens(), s.shared_ffn, arena);
  pending.d_results =
      AllocateOperand(arena, Purpose::kPending, "moe.d_results", s.formats.dispatch_gradient, rows, s.hidden);
  pending.experts = AllocateMlpPending(s, rows, s.expert_ffn, arena);
  return pending;
}

MoeWorkspace AllocateMoeWorkspace(const ModelShape& s, const OperandFormat& sent, const ExpertExchange& exchange,
                                  Arena& arena) {
  const int64_t rows = exchange.max_rows();
  MoeWorkspace workspace;
  workspace.base = arena.Allocate(Purpose::kExchange, "moe.base", s.act, s.tokens(), s.hidden);
  if (sent.quantised()) {
    workspace.sent = AllocateOperand(arena, Purpose::kExchange, "moe.sent", sent, s.tokens(), s.hidden);
  }
  workspace.rows = arena.Allocate(Purpose::kExchange, "moe.travelling_rows", s.act, rows, s.hidden);
  workspace.row_weight = arena.Allocate(Purpose::kExchange, "moe.travelling_weight", DType::kF32, 1, rows);
  return workspace;
}

void MoeForwardDispatch(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& w, ConstView x,
                        ConstView u, const RouterStatistics& statistics, const MoeSaved& saved,
                        const MoeWorkspace& workspace) {
  RouterForward(ctx, w.router, x, statistics, saved.router);
  exchange.BeginDispatch(ctx.backend, ctx.stream, *saved.plan,
                         {Sent(ctx, x, workspace), saved.router.experts, saved.router.weights,
                          Arrival(ctx, saved, workspace), saved.row_weight});
  if (ctx.shape.shared_ffn == 0) return;
  MlpForward(ctx, w.shared, x, saved.shared, workspace.base);
  ctx.backend.Add(ctx.stream, u, workspace.base, workspace.base);
}

void MoeForwardExperts(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& w,
                       const MoeSaved& saved, const MoeWorkspace& workspace) {
  exchange.AwaitDispatch(ctx.backend, ctx.stream, *saved.plan);
  const MlpRows rows = ExpertRows(exchange, saved, nullptr);
  const MutableOperand came = Arrival(ctx, saved, workspace);
  KeepRounded(ctx, came, saved.rows, rows.segments);
  MlpForward(ctx, w.experts, came, saved.experts, workspace.rows, rows);
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
  exchange.BeginCombineBackward(ctx.backend, ctx.stream, *saved.plan, Sent(ctx, d_out, workspace), pending.d_results);
  if (ctx.shape.shared_ffn == 0) return;
  MlpBackwardInput(ctx, w.shared, saved.shared, pending.shared, d_out, workspace.base);
}

void MoeBackwardExperts(const LayerContext& ctx, const ExpertExchange& exchange, const MoeWeights& w,
                        const MoeSaved& saved, const MoePending& pending, const MoeWorkspace& workspace) {
  exchange.AwaitCombineBackward(ctx.backend, ctx.stream, *saved.plan);
  MlpBackwardInput(ctx, w.experts, saved.experts, pending.experts, pending.d_results, workspace.rows,
                   ExpertRows(exchange, saved, &workspace));
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

void MoeBackwardWeight(const LayerContext& ctx, ConstView x, const MoeSaved& saved, const MoePending& pending,
                       ConstView d_out, const MoeWeights& grads) {
  ArenaScope scope(ctx.scratch);
  RouterBackwardWeight(ctx, x, pending.router, grads.router);
  if (ctx.shape.shared_ffn > 0) {
    const Operand cached = AsCached(ctx, x, ctx.shape.formats.cached_linear_input);
    MlpBackwardWeight(ctx, cached, saved.shared, pending.shared, d_out, grads.shared);
  }
}

OperationCost MoeCost(const ModelShape& s, const RecomputeOptions& recompute, const ExpertExchange& exchange) {
  OperationCost cost = RouterCost(s);
  if (s.shared_ffn > 0) cost += MlpCost(s, recompute, s.formats.cached_swiglu_input, s.shared_ffn);
  const int64_t journeys = s.tokens() * s.chosen;
  AddLinear(cost, journeys, 2 * s.expert_ffn, s.hidden);
  AddLinear(cost, journeys, s.hidden, s.expert_ffn);
  const int64_t act_row = s.hidden * SizeOf(s.act);
  cost.dispatch_bytes = journeys * (RowBytes(s.formats.dispatch, s.hidden) + SizeOf(DType::kF32));
  cost.combine_bytes = journeys * act_row;
  cost.combine_backward_bytes = journeys * RowBytes(s.formats.dispatch_gradient, s.hidden);
  cost.dispatch_backward_bytes = journeys * (act_row + SizeOf(DType::kF32));
  Arena measure = Arena::Measuring();
  AllocateMoeSaved(s, recompute, exchange, measure);
  AllocateMoePending(s, exchange, measure);
  // The parts' own bytes are in these figures already. Plans are kept as long as activations.
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations) + measure.high_water_bytes(Purpose::kExchange);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
