// x -> u = x + attention(norm(x)) -> out = u + feed-forward(norm(u)).
#include "trainer/model/block.h"

#include "trainer/model/linear.h"

namespace shoestring {
namespace {

// Where forward makes the feed-forward layer's input.
MutableOperand Normed(const BlockRun& run) {
  const MutableOperand& kept = run.saved.normed;
  const bool made_as_kept = !kept.quantised() || run.ctx.shape.formats.input_made_as_kept();
  return kept && made_as_kept ? kept : MutableOperand(run.workspace.normed);
}

// What weight gradients read: as it is kept, or made again.
Operand NormedForBackward(const BlockRun& run) {
  const LayerContext& ctx = run.ctx;
  if (run.saved.normed) return run.saved.normed;
  const View normed = ctx.Scratch("block.normed", ctx.shape.act, ctx.shape.tokens(), ctx.shape.hidden);
  ctx.backend.RmsNorm(ctx.stream, {run.saved.u, {}, {}, run.weights.norm, ctx.shape.norm_eps, normed, {}});
  return normed;
}

// The residual add is fused with the norm that follows it: u is rounded to act before it is normalised.
void ForwardAttention(const BlockRun& run) {
  const LayerContext& ctx = run.ctx;
  MlaForward(ctx, run.weights.attention, run.saved.attention, run.workspace.branch);
  ctx.backend.RmsNorm(ctx.stream, {run.saved.attention.x, run.workspace.branch, run.saved.u, run.weights.norm,
                                   ctx.shape.norm_eps, Normed(run), run.saved.inverse_rms});
  KeepRounded(ctx, Normed(run), run.saved.normed);
}

void ForwardDense(const BlockRun& run, BlockPart part, View out) {
  const LayerContext& ctx = run.ctx;
  if (part == BlockPart::kExperts) {
    MlpForward(ctx, run.weights.dense, Normed(run), run.saved.dense, run.workspace.branch);
  } else if (part == BlockPart::kCombine) {
    ctx.backend.Add(ctx.stream, run.saved.u, run.workspace.branch, out);
  }
}

void ForwardMoe(const BlockRun& run, BlockPart part, View out) {
  const MoeWeights& w = run.weights.moe;
  const MoeSaved& saved = run.saved.moe;
  const MoeWorkspace& workspace = run.workspace.moe;
  if (part == BlockPart::kDispatch) {
    MoeForwardDispatch(run.ctx, run.exchange, w, Normed(run).values, run.saved.u, run.statistics, saved, workspace);
  } else if (part == BlockPart::kExperts) {
    MoeForwardExperts(run.ctx, run.exchange, w, saved, workspace);
  } else {
    MoeForwardCombine(run.ctx, run.exchange, run.saved.u, saved, workspace, out);
  }
}

// The gradient of u: through the norm, and along the residual path. Then attention's.
void BackwardAttention(const BlockRun& run, const BlockPending& pending, View dx) {
  const LayerContext& ctx = run.ctx;
  const View d_u = pending.attention.d_out;
  ctx.backend.RmsNormBackwardInput(
      ctx.stream, {pending.d_normed, run.saved.u, run.weights.norm, run.saved.inverse_rms, pending.d_out, d_u});
  MlaBackwardInput(ctx, run.weights.attention, run.saved.attention, pending.attention, d_u, dx);
}

void BackwardMoe(const BlockRun& run, BlockPart part, const BlockPending& pending) {
  const MoeWeights& w = run.weights.moe;
  const MoeSaved& saved = run.saved.moe;
  const MoeWorkspace& workspace = run.workspace.moe;
  if (part == BlockPart::kCombine) {
    MoeBackwardCombine(run.ctx, run.exchange, w, saved, pending.moe, pending.d_out, workspace);
  } else if (part == BlockPart::kExperts) {
    MoeBackwardExperts(run.ctx, run.exchange, w, saved, pending.moe, workspace);
  } else {
    MoeBackwardDispatch(run.ctx, run.exchange, w, run.statistics.balance_scale, saved, pending.moe, workspace,
                        pending.d_normed);
  }
}

}  // namespace

void VisitBlockWeights(const ModelShape& shape, bool is_moe, const std::string& prefix, BlockWeights& weights,
                       WeightVisitor visit) {
  VisitMlaWeights(shape, prefix, weights.attention, visit);
  visit(prefix + "post_attention_layernorm.weight", 0, weights.norm);
  if (is_moe) {
    VisitMoeWeights(shape, prefix + "mlp.", weights.moe, visit);
  } else {
    VisitMlpWeights(prefix + "mlp.", weights.dense, visit);
  }
}

BlockSaved AllocateBlockSaved(const ModelShape& s, const RecomputeOptions& recompute, bool is_moe,
                              const ExpertExchange& exchange, Arena& arena) {
  BlockSaved saved;
  saved.attention = AllocateMlaSaved(s, recompute, arena);
  saved.u = arena.Allocate(Purpose::kActivations, "block.u", s.act, s.tokens(), s.hidden);
  saved.inverse_rms = arena.Allocate(Purpose::kActivations, "block.inverse_rms", DType::kF32, 1, s.tokens());
  if (!recompute.norms) {
    const OperandFormat act = {s.act, {}, false};
    saved.normed = AllocateOperand(arena, Purpose::kActivations, "block.normed",
                                   is_moe ? act : s.formats.cached_linear_input, s.tokens(), s.hidden);
  }
  if (is_moe) {
    saved.moe = AllocateMoeSaved(s, recompute, exchange, arena);
  } else {
    saved.dense = AllocateMlpSaved(s, recompute, {s.act, {}, false}, s.tokens(), s.dense_ffn, arena);
  }
  return saved;
}

BlockPending AllocateBlockPending(const ModelShape& s, bool is_moe, const ExpertExchange& exchange, Arena& arena) {
  BlockPending pending;
  pending.attention = AllocateMlaPending(s, arena);
  pending.d_out = arena.Allocate(Purpose::kPending, "block.d_out", s.act, s.tokens(), s.hidden);
  pending.d_normed = arena.Allocate(Purpose::kPending, "block.d_normed", s.act, s.tokens(), s.hidden);
  if (is_moe) {
    pending.moe = AllocateMoePending(s, exchange, arena);
  } else {
    pending.dense = AllocateMlpPending(s, s.tokens(), s.dense_ffn, arena);
  }
  return pending;
}

BlockWorkspace AllocateBlockWorkspace(const ModelShape& s, const RecomputeOptions& recompute, const OperandFormat& sent,
                                      const ExpertExchange& exchange, Arena& arena) {
  BlockWorkspace workspace;
  workspace.branch = arena.Allocate(Purpose::kScratch, "block.branch", s.act, s.tokens(), s.hidden);
  if (recompute.norms || !s.formats.input_made_as_kept()) {
    workspace.normed = arena.Allocate(Purpose::kScratch, "block.normed", s.act, s.tokens(), s.hidden);
  }
  if (s.experts > 0) workspace.moe = AllocateMoeWorkspace(s, sent, exchange, arena);
  return workspace;
}

void BlockForward(const BlockRun& run, BlockPart part, View out) {
  if (part == BlockPart::kAttention) {
    ForwardAttention(run);
  } else if (run.is_moe) {
    ForwardMoe(run, part, out);
  } else {
    ForwardDense(run, part, out);
  }
}

void BlockBackwardInput(const BlockRun& run, BlockPart part, const BlockPending& pending, View dx) {
  if (part == BlockPart::kAttention) {
    BackwardAttention(run, pending, dx);
  } else if (run.is_moe) {
    BackwardMoe(run, part, pending);
  } else if (part == BlockPart::kExperts) {
    MlpBackwardInput(run.ctx, run.weights.dense, run.saved.dense, pending.dense, pending.d_out, pending.d_normed);
  }
}

void BlockBackwardWeight(const BlockRun& run, const BlockPending& pending, const BlockWeights& grads) {
  const LayerContext& ctx = run.ctx;
  ArenaScope scope(ctx.scratch);
  const Operand normed = NormedForBackward(run);
  if (run.is_moe) {
    MoeBackwardWeight(ctx, normed.values, run.saved.moe, pending.moe, pending.d_out, grads.moe);
  } else {
    const Operand x = AsCached(ctx, normed, ctx.shape.formats.cached_linear_input);
    MlpBackwardWeight(ctx, x, run.saved.dense, pending.dense, pending.d_out, grads.dense);
  }
  ctx.backend.RmsNormBackwardWeight(ctx.stream, {pending.d_normed, run.saved.u, run.saved.inverse_rms, grads.norm});
  MlaBackwardWeight(ctx, run.weights.attention, run.saved.attention, pending.attention, grads.attention);
}

OperationCost BlockCost(const ModelShape& s, const RecomputeOptions& recompute, bool is_moe,
                        const ExpertExchange& exchange) {
  OperationCost cost = MlaCost(s, recompute);
  cost += is_moe ? MoeCost(s, recompute, exchange) : MlpCost(s, recompute, {s.act, {}, false}, s.dense_ffn);
  Arena measure = Arena::Measuring();
  AllocateBlockSaved(s, recompute, is_moe, exchange, measure);
  AllocateBlockPending(s, is_moe, exchange, measure);
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations) + measure.high_water_bytes(Purpose::kExchange);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
