// Two products around SwiGLU.
#include "trainer/model/mlp.h"

#include "trainer/model/linear.h"

namespace shoestring {
namespace {

void ApplySwiGlu(const LayerContext& ctx, ConstView gate_up, const MlpRows& rows, const MutableOperand& hidden) {
  ctx.backend.SwiGlu(ctx.stream, {gate_up, rows.weight, rows.segments.offsets}, hidden);
}

// What the weight gradient reads, made where it is kept, or else in the open scope. `gate_up` as backward knows it.
Operand HiddenForBackward(const LayerContext& ctx, ConstView gate_up, const MlpRows& rows, const MutableOperand& kept) {
  const MutableOperand hidden = InputPlace(ctx, kept, "mlp.hidden", gate_up.rows, gate_up.cols / 2);
  ApplySwiGlu(ctx, gate_up, rows, hidden);
  KeepRounded(ctx, hidden, kept, rows.segments);
  return hidden;
}

}  // namespace

void VisitMlpWeights(const std::string& prefix, MlpWeights& weights, WeightVisitor visit) {
  visit(prefix + "gate_up_proj.weight", 0, weights.gate_up);
  visit(prefix + "down_proj.weight", 0, weights.down);
}

MlpSaved AllocateMlpSaved(const ModelShape& s, const RecomputeOptions& recompute, const OperandFormat& gate_up,
                          int64_t rows, int64_t width, Arena& arena) {
  MlpSaved saved;
  saved.gate_up = AllocateOperand(arena, Purpose::kActivations, "mlp.gate_up", gate_up, rows, 2 * width);
  if (!recompute.swiglu) {
    saved.hidden =
        AllocateOperand(arena, Purpose::kActivations, "mlp.hidden", s.formats.cached_linear_input, rows, width);
  }
  return saved;
}

MlpPending AllocateMlpPending(const ModelShape& s, int64_t rows, int64_t width, Arena& arena) {
  return {arena.Allocate(Purpose::kPending, "mlp.d_gate_up", s.act, rows, 2 * width)};
}

void MlpForward(const LayerContext& ctx, const MlpWeights& w, const Operand& x, const MlpSaved& saved, View out,
                const MlpRows& rows) {
  ArenaScope scope(ctx.scratch);
  const bool is_rounded = saved.gate_up.quantised();
  const View gate_up = is_rounded ? ctx.Scratch("mlp.gate_up", ctx.shape.act, x.values.rows, saved.gate_up.values.cols)
                                  : saved.gate_up.values;
  LinearForward(ctx, x, w.gate_up, gate_up, rows.segments);
  if (!is_rounded) {
    LinearForward(ctx, HiddenForBackward(ctx, gate_up, rows, saved.hidden), w.down, out, rows.segments);
    return;
  }
  // Forward goes on with the exact gate_up, backward with what is kept of it: so does the hidden that is kept, or
  // recomputing would change it.
  const MutableOperand hidden = InputPlace(ctx, {}, "mlp.hidden", gate_up.rows, gate_up.cols / 2);
  ApplySwiGlu(ctx, gate_up, rows, hidden);
  LinearForward(ctx, hidden, w.down, out, rows.segments);
  KeepRounded(ctx, gate_up, saved.gate_up, rows.segments);
  if (saved.hidden) HiddenForBackward(ctx, AsAct(ctx, saved.gate_up, rows.segments), rows, saved.hidden);
}

void MlpBackwardInput(const LayerContext& ctx, const MlpWeights& w, const MlpSaved& saved, const MlpPending& pending,
                      const Operand& d_out, View dx, const MlpRows& rows) {
  ArenaScope scope(ctx.scratch);
  const View d_hidden = ctx.Scratch("mlp.d_hidden", ctx.shape.act, d_out.values.rows, saved.gate_up.values.cols / 2);
  LinearBackwardInput(ctx, d_out, w.down, d_hidden, rows.segments);
  const ConstView gate_up = AsAct(ctx, saved.gate_up, rows.segments);
  ctx.backend.SwiGluBackward(ctx.stream, {gate_up, rows.weight, rows.segments.offsets}, d_hidden, pending.d_gate_up,
                             rows.d_weight);
  LinearBackwardInput(ctx, pending.d_gate_up, w.gate_up, dx, rows.segments);
}

void MlpBackwardWeight(const LayerContext& ctx, const Operand& x, const MlpSaved& saved, const MlpPending& pending,
                       const Operand& d_out, const MlpWeights& grads, const MlpRows& rows) {
  ArenaScope scope(ctx.scratch);
  Operand hidden = saved.hidden;
  if (!hidden) hidden = HiddenForBackward(ctx, AsAct(ctx, saved.gate_up, rows.segments), rows, {});
  hidden = AsCached(ctx, hidden, ctx.shape.formats.cached_linear_input, rows.segments);
  LinearBackwardWeight(ctx, d_out, hidden, grads.down.values, rows.segments);
  LinearBackwardWeight(ctx, pending.d_gate_up, x, grads.gate_up.values, rows.segments);
}

OperationCost MlpCost(const ModelShape& s, const RecomputeOptions& recompute, const OperandFormat& gate_up,
                      int64_t width) {
  OperationCost cost;
  AddLinear(cost, s.tokens(), 2 * width, s.hidden);
  AddLinear(cost, s.tokens(), s.hidden, width);
  Arena measure = Arena::Measuring();
  AllocateMlpSaved(s, recompute, gate_up, s.tokens(), width, measure);
  AllocateMlpPending(s, s.tokens(), width, measure);
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
