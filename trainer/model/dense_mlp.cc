// Two products around SwiGLU.
#include "trainer/model/dense_mlp.h"

namespace shoestring {

void VisitDenseMlpWeights(const std::string& prefix, DenseMlpWeights& weights, WeightVisitor visit) {
  visit(prefix + "gate_up_proj.weight", 0, weights.gate_up);
  visit(prefix + "down_proj.weight", 0, weights.down);
}

DenseMlpSaved AllocateDenseMlpSaved(const ModelShape& s, const RecomputeOptions& recompute, int64_t width,
                                    Arena& arena) {
  DenseMlpSaved saved;
  saved.gate_up = arena.Allocate(Purpose::kActivations, "mlp.gate_up", s.act, s.tokens(), 2 * width);
  if (!recompute.swiglu) {
    saved.hidden = arena.Allocate(Purpose::kActivations, "mlp.hidden", s.act, s.tokens(), width);
  }
  return saved;
}

DenseMlpPending AllocateDenseMlpPending(const ModelShape& s, int64_t width, Arena& arena) {
  return {arena.Allocate(Purpose::kPending, "mlp.d_gate_up", s.act, s.tokens(), 2 * width)};
}

void DenseMlpForward(const LayerContext& ctx, const DenseMlpWeights& w, ConstView x, const DenseMlpSaved& saved,
                     View out) {
  ArenaScope scope(ctx.scratch);
  const View hidden = ctx.KeptOrScratch(saved.hidden, "mlp.hidden", x.rows, saved.gate_up.cols / 2);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNT, x, w.gate_up, saved.gate_up);
  ctx.backend.SwiGlu(ctx.stream, {saved.gate_up, {}, {}}, hidden);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNT, hidden, w.down, out);
}

void DenseMlpBackwardInput(const LayerContext& ctx, const DenseMlpWeights& w, const DenseMlpSaved& saved,
                           const DenseMlpPending& pending, ConstView d_out, View dx) {
  ArenaScope scope(ctx.scratch);
  const View d_hidden = ctx.Scratch("mlp.d_hidden", ctx.shape.act, d_out.rows, saved.gate_up.cols / 2);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNN, d_out, w.down, d_hidden);
  ctx.backend.SwiGluBackward(ctx.stream, {saved.gate_up, {}, {}}, d_hidden, pending.d_gate_up, {});
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNN, pending.d_gate_up, w.gate_up, dx);
}

void DenseMlpBackwardWeight(const LayerContext& ctx, ConstView x, const DenseMlpSaved& saved,
                            const DenseMlpPending& pending, ConstView d_out, const DenseMlpWeights& grads) {
  ArenaScope scope(ctx.scratch);
  const View hidden = ctx.KeptOrScratch(saved.hidden, "mlp.hidden", x.rows, saved.gate_up.cols / 2);
  if (!saved.hidden) ctx.backend.SwiGlu(ctx.stream, {saved.gate_up, {}, {}}, hidden);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kTN, d_out, hidden, grads.down, /*accumulate=*/true);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kTN, pending.d_gate_up, x, grads.gate_up, /*accumulate=*/true);
}

OperationCost DenseMlpCost(const ModelShape& s, const RecomputeOptions& recompute, int64_t width) {
  OperationCost cost;
  AddLinear(cost, s.tokens(), 2 * width, s.hidden);
  AddLinear(cost, s.tokens(), s.hidden, width);
  Arena measure = Arena::Measuring();
  AllocateDenseMlpSaved(s, recompute, width, measure);
  AllocateDenseMlpPending(s, width, measure);
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
