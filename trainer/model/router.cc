// A product with FP32 result, the gate, and the balance loss.
#include "trainer/model/router.h"

namespace shoestring {
namespace {

GateArgs MakeGateArgs(const ModelShape& s, ConstView logits, ConstView bias) {
  return {logits, bias, s.gate, s.group_score, s.groups, s.groups_kept, s.chosen, s.renormalize, s.routed_scaling};
}

}  // namespace

void VisitRouterWeights(const std::string& prefix, RouterWeights& weights, WeightVisitor visit) {
  visit(prefix + "gate.weight", 0, weights.gate);
  visit(prefix + "gate.e_score_correction_bias", 0, weights.bias);
}

RouterSaved AllocateRouterSaved(const ModelShape& s, Arena& arena) {
  const auto keep = [&](const char* name, DType dtype, int64_t cols) {
    return arena.Allocate(Purpose::kActivations, name, dtype, s.tokens(), cols);
  };
  RouterSaved saved;
  saved.scores = keep("router.scores", DType::kF32, s.experts);
  saved.experts = keep("router.experts", DType::kI32, s.chosen);
  saved.weights = keep("router.weights", DType::kF32, s.chosen);
  saved.d_scores = keep("router.d_scores", DType::kF32, s.experts);
  return saved;
}

RouterPending AllocateRouterPending(const ModelShape& s, Arena& arena) {
  return {arena.Allocate(Purpose::kPending, "router.d_logits", s.act, s.tokens(), s.experts)};
}

void RouterForward(const LayerContext& ctx, const RouterWeights& w, ConstView x, const RouterStatistics& statistics,
                   const RouterSaved& saved) {
  const ModelShape& s = ctx.shape;
  ArenaScope scope(ctx.scratch);
  const View logits = ctx.Scratch("router.logits", DType::kF32, s.tokens(), s.experts);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNT, x, w.gate, logits);
  ctx.backend.Gate(ctx.stream, MakeGateArgs(s, logits, w.bias),
                   {saved.scores, saved.experts, saved.weights, statistics.counts});
  if (statistics.balance_scale == 0) return;
  ctx.backend.SequenceBalance(ctx.stream, {saved.scores, s.sequence_length, s.chosen, statistics.balance_scale,
                                           statistics.balance_loss, saved.d_scores});
}

void RouterBackwardInput(const LayerContext& ctx, const RouterWeights& w, double balance_scale,
                         const RouterSaved& saved, const RouterPending& pending, ConstView d_weights, View dx) {
  const ModelShape& s = ctx.shape;
  ArenaScope scope(ctx.scratch);
  // The products below take operands of one dtype, so in the BF16 mode the gradient of the logits is rounded to BF16
  // once, as the gradient of every other layer's output is.
  const bool rounds = s.act != DType::kF32;
  const View d_logits = rounds ? ctx.Scratch("router.d_logits", DType::kF32, s.tokens(), s.experts) : pending.d_logits;
  const ConstView d_scores = balance_scale == 0 ? ConstView() : ConstView(saved.d_scores);
  ctx.backend.GateBackward(ctx.stream, MakeGateArgs(s, {}, w.bias),
                           {saved.scores, saved.experts, d_weights, d_scores, d_logits});
  if (rounds) ctx.backend.Copy(ctx.stream, d_logits, pending.d_logits);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNN, pending.d_logits, w.gate, dx);
}

void RouterBackwardWeight(const LayerContext& ctx, ConstView x, const RouterPending& pending,
                          const RouterWeights& grads) {
  ctx.backend.Gemm(ctx.stream, GemmLayout::kTN, pending.d_logits, x, grads.gate, /*accumulate=*/true);
}

OperationCost RouterCost(const ModelShape& s) {
  OperationCost cost;
  AddLinear(cost, s.tokens(), s.experts, s.hidden);
  Arena measure = Arena::Measuring();
  AllocateRouterSaved(s, measure);
  AllocateRouterPending(s, measure);
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
