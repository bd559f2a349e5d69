// One fused projection down to both latents and the shared RoPE key, two projections up, the core, one projection out.
#include "trainer/model/mla.h"

#include "trainer/model/linear.h"

namespace shoestring {
namespace {

// The three parts of a row of qkv_a, or of its gradient.
View QueryPart(const ModelShape& s, View qkv_a) { return qkv_a.Columns(0, s.q_a_width()); }
View LatentPart(const ModelShape& s, View qkv_a) { return qkv_a.Columns(s.q_a_width(), s.kv_rank); }
View RopeKeyPart(const ModelShape& s, View qkv_a) { return qkv_a.Columns(s.q_a_width() + s.kv_rank, s.rope); }

void RotateQueries(const LayerContext& ctx, View q, bool inverse) {
  const ModelShape& s = ctx.shape;
  ctx.backend.Rope(ctx.stream,
                   {q, s.heads, s.nope + s.rope, s.nope, ctx.rope.cos, ctx.rope.sin, ctx.positions, inverse});
}

void RotateKey(const LayerContext& ctx, View key, bool inverse) {
  ctx.backend.Rope(ctx.stream, {key, 1, ctx.shape.rope, 0, ctx.rope.cos, ctx.rope.sin, ctx.positions, inverse});
}

// Recomputing passes no place for inverse_rms: it is kept.
void NormInput(const LayerContext& ctx, const MlaWeights& w, const MlaSaved& saved, const MutableOperand& normed,
               View inverse_rms) {
  ctx.backend.RmsNorm(ctx.stream, {saved.x, {}, {}, w.norm, ctx.shape.norm_eps, normed, inverse_rms});
}

struct Latents {
  MutableOperand c_q;
  MutableOperand c_kv;
};
Latents LatentsPlace(const LayerContext& ctx, const MlaSaved& saved) {
  const ModelShape& s = ctx.shape;
  Latents latents;
  if (s.q_rank > 0) latents.c_q = InputPlace(ctx, saved.c_q, "mla.c_q", s.tokens(), s.q_rank);
  latents.c_kv = InputPlace(ctx, saved.c_kv, "mla.c_kv", s.tokens(), s.kv_rank);
  return latents;
}

void NormLatents(const LayerContext& ctx, const MlaWeights& w, const MlaSaved& saved, const Latents& to, bool first) {
  const ModelShape& s = ctx.shape;
  const View none;
  if (s.q_rank > 0) {
    ctx.backend.RmsNorm(
        ctx.stream,
        {QueryPart(s, saved.qkv_a), {}, {}, w.q_norm, kLatentNormEps, to.c_q, first ? saved.q_inverse_rms : none});
  }
  ctx.backend.RmsNorm(
      ctx.stream,
      {LatentPart(s, saved.qkv_a), {}, {}, w.kv_norm, kLatentNormEps, to.c_kv, first ? saved.kv_inverse_rms : none});
}

struct Expanded {
  View q;
  View kv;
};
Expanded ExpandedPlace(const LayerContext& ctx, const MlaSaved& saved) {
  const ModelShape& s = ctx.shape;
  return {ctx.KeptOrScratch(saved.q, "mla.q", s.tokens(), s.query_width()),
          ctx.KeptOrScratch(saved.kv, "mla.kv", s.tokens(), s.kv_width())};
}

// Queries, keys and values from their latents. Queries without latent are in place already.
void Expand(const LayerContext& ctx, const MlaWeights& w, const Latents& latents, const Expanded& to) {
  if (ctx.shape.q_rank > 0) {
    LinearForward(ctx, latents.c_q, w.q_b, to.q);
    RotateQueries(ctx, to.q, /*inverse=*/false);
  }
  LinearForward(ctx, latents.c_kv, w.kv_b, to.kv);
}

// What weight gradients read: as it is kept, or made again and rounded alike.
struct LinearInputs {
  Operand normed;
  Operand c_q;
  Operand c_kv;
};
LinearInputs InputsForBackward(const LayerContext& ctx, const MlaWeights& w, const MlaSaved& saved) {
  if (saved.normed) return {saved.normed, saved.c_q, saved.c_kv};
  const ModelShape& s = ctx.shape;
  const MutableOperand normed = InputPlace(ctx, {}, "mla.normed", s.tokens(), s.hidden);
  const Latents latents = LatentsPlace(ctx, saved);
  NormInput(ctx, w, saved, normed, {});
  NormLatents(ctx, w, saved, latents, /*first=*/false);
  const OperandFormat& format = s.formats.cached_linear_input;
  LinearInputs inputs;
  inputs.normed = AsCached(ctx, normed, format);
  if (s.q_rank > 0) inputs.c_q = AsCached(ctx, latents.c_q, format);
  inputs.c_kv = AsCached(ctx, latents.c_kv, format);
  return inputs;
}

AttentionArgs CoreArgs(const LayerContext& ctx, const MlaSaved& saved, const Expanded& expanded) {
  return {ctx.shape.attention(), ctx.softmax_scale, expanded.q, expanded.kv, RopeKeyPart(ctx.shape, saved.qkv_a),
          ctx.first_visible};
}

View CoreWorkspace(const LayerContext& ctx, bool backward) {
  return ctx.Scratch("mla.workspace", DType::kU8, 1,
                     ctx.backend.AttentionWorkspaceBytes(ctx.shape.attention(), backward));
}

}  // namespace

void VisitMlaWeights(const ModelShape& shape, const std::string& prefix, MlaWeights& weights, WeightVisitor visit) {
  visit(prefix + "input_layernorm.weight", 0, weights.norm);
  visit(prefix + "self_attn.qkv_a_proj.weight", 0, weights.qkv_a);
  if (shape.q_rank > 0) {
    visit(prefix + "self_attn.q_a_layernorm.weight", 0, weights.q_norm);
    visit(prefix + "self_attn.q_b_proj.weight", 0, weights.q_b);
  }
  visit(prefix + "self_attn.kv_a_layernorm.weight", 0, weights.kv_norm);
  visit(prefix + "self_attn.kv_b_proj.weight", 0, weights.kv_b);
  visit(prefix + "self_attn.o_proj.weight", 0, weights.o);
}

MlaSaved AllocateMlaSaved(const ModelShape& s, const RecomputeOptions& recompute, Arena& arena) {
  const auto keep = [&](const char* name, DType dtype, int64_t rows, int64_t cols) {
    return arena.Allocate(Purpose::kActivations, name, dtype, rows, cols);
  };
  const int64_t tokens = s.tokens();
  MlaSaved saved;
  saved.x = keep("mla.x", s.act, tokens, s.hidden);
  saved.inverse_rms = keep("mla.inverse_rms", DType::kF32, 1, tokens);
  saved.qkv_a = keep("mla.qkv_a", s.act, tokens, s.qkv_a_width());
  saved.kv_inverse_rms = keep("mla.kv_inverse_rms", DType::kF32, 1, tokens);
  if (s.q_rank > 0) saved.q_inverse_rms = keep("mla.q_inverse_rms", DType::kF32, 1, tokens);
  const auto keep_rounded = [&](const char* name, const OperandFormat& format, int64_t cols) {
    return AllocateOperand(arena, Purpose::kActivations, name, format, tokens, cols);
  };
  if (!recompute.norms) {
    const OperandFormat& input = s.formats.cached_linear_input;
    saved.normed = keep_rounded("mla.normed", input, s.hidden);
    if (s.q_rank > 0) saved.c_q = keep_rounded("mla.c_q", input, s.q_rank);
    saved.c_kv = keep_rounded("mla.c_kv", input, s.kv_rank);
  }
  if (s.q_rank == 0) saved.q = QueryPart(s, saved.qkv_a);
  if (!recompute.mla_up) {
    if (s.q_rank > 0) saved.q = keep("mla.q", s.act, tokens, s.query_width());
    saved.kv = keep("mla.kv", s.act, tokens, s.kv_width());
  }
  saved.out = keep_rounded("mla.out", s.formats.cached_attention_output, s.value_width());
  saved.log_sum_exp = keep("mla.log_sum_exp", DType::kF32, tokens, s.heads);
  return saved;
}

MlaPending AllocateMlaPending(const ModelShape& s, Arena& arena) {
  const auto keep = [&](const char* name, int64_t cols) {
    return arena.Allocate(Purpose::kPending, name, s.act, s.tokens(), cols);
  };
  MlaPending pending;
  pending.d_out = keep("mla.d_out", s.hidden);
  pending.d_qkv_a = keep("mla.d_qkv_a", s.qkv_a_width());
  pending.d_kv = keep("mla.d_kv", s.kv_width());
  pending.d_c_kv = keep("mla.d_c_kv", s.kv_rank);
  if (s.q_rank > 0) {
    pending.d_q = keep("mla.d_q", s.query_width());
    pending.d_c_q = keep("mla.d_c_q", s.q_rank);
  } else {
    pending.d_q = QueryPart(s, pending.d_qkv_a);
  }
  pending.d_normed = keep("mla.d_normed", s.hidden);
  return pending;
}

void MlaForward(const LayerContext& ctx, const MlaWeights& w, const MlaSaved& saved, View out) {
  const ModelShape& s = ctx.shape;
  ArenaScope scope(ctx.scratch);
  const MutableOperand normed = InputPlace(ctx, saved.normed, "mla.normed", s.tokens(), s.hidden);
  NormInput(ctx, w, saved, normed, saved.inverse_rms);
  KeepRounded(ctx, normed, saved.normed);
  LinearForward(ctx, normed, w.qkv_a, saved.qkv_a);
  RotateKey(ctx, RopeKeyPart(s, saved.qkv_a), /*inverse=*/false);
  if (s.q_rank == 0) RotateQueries(ctx, saved.q, /*inverse=*/false);
  const Latents latents = LatentsPlace(ctx, saved);
  NormLatents(ctx, w, saved, latents, /*first=*/true);
  if (s.q_rank > 0) KeepRounded(ctx, latents.c_q, saved.c_q);
  KeepRounded(ctx, latents.c_kv, saved.c_kv);
  const Expanded expanded = ExpandedPlace(ctx, saved);
  Expand(ctx, w, latents, expanded);
  const View core =
      saved.out.quantised() ? ctx.Scratch("mla.out", s.act, s.tokens(), s.value_width()) : saved.out.values;
  ctx.backend.AttentionForward(ctx.stream, CoreArgs(ctx, saved, expanded), core, saved.log_sum_exp,
                               CoreWorkspace(ctx, /*backward=*/false));
  KeepRounded(ctx, core, saved.out);
  LinearForward(ctx, core, w.o, out);
}

void MlaBackwardInput(const LayerContext& ctx, const MlaWeights& w, const MlaSaved& saved, const MlaPending& pending,
                      ConstView add, View dx) {
  const ModelShape& s = ctx.shape;
  Backend& backend = ctx.backend;
  ArenaScope scope(ctx.scratch);
  const Expanded expanded = ExpandedPlace(ctx, saved);
  if (!saved.kv) {  // mla_up is recomputed
    const Latents latents = LatentsPlace(ctx, saved);
    const bool are_kept = latents.c_kv.values.data == saved.c_kv.values.data;
    if (!are_kept) NormLatents(ctx, w, saved, latents, /*first=*/false);
    Expand(ctx, w, latents, expanded);
  }
  const View d_core = ctx.Scratch("mla.d_core", s.act, s.tokens(), s.value_width());
  LinearBackwardInput(ctx, pending.d_out, w.o, d_core);
  const View d_key = RopeKeyPart(s, pending.d_qkv_a);
  backend.AttentionBackward(ctx.stream, CoreArgs(ctx, saved, expanded),
                            {AsAct(ctx, saved.out), saved.log_sum_exp, d_core, pending.d_q, pending.d_kv, d_key},
                            CoreWorkspace(ctx, /*backward=*/true));
  RotateQueries(ctx, pending.d_q, /*inverse=*/true);
  RotateKey(ctx, d_key, /*inverse=*/true);
  if (s.q_rank > 0) {
    LinearBackwardInput(ctx, pending.d_q, w.q_b, pending.d_c_q);
    backend.RmsNormBackwardInput(
        ctx.stream,
        {pending.d_c_q, QueryPart(s, saved.qkv_a), w.q_norm, saved.q_inverse_rms, {}, QueryPart(s, pending.d_qkv_a)});
  }
  LinearBackwardInput(ctx, pending.d_kv, w.kv_b, pending.d_c_kv);
  backend.RmsNormBackwardInput(ctx.stream, {pending.d_c_kv,
                                            LatentPart(s, saved.qkv_a),
                                            w.kv_norm,
                                            saved.kv_inverse_rms,
                                            {},
                                            LatentPart(s, pending.d_qkv_a)});
  LinearBackwardInput(ctx, pending.d_qkv_a, w.qkv_a, pending.d_normed);
  backend.RmsNormBackwardInput(ctx.stream, {pending.d_normed, saved.x, w.norm, saved.inverse_rms, add, dx});
}

void MlaBackwardWeight(const LayerContext& ctx, const MlaWeights& w, const MlaSaved& saved, const MlaPending& pending,
                       const MlaWeights& grads) {
  const ModelShape& s = ctx.shape;
  Backend& backend = ctx.backend;
  ArenaScope scope(ctx.scratch);
  const LinearInputs inputs = InputsForBackward(ctx, w, saved);
  LinearBackwardWeight(ctx, pending.d_out, saved.out, grads.o.values);
  LinearBackwardWeight(ctx, pending.d_kv, inputs.c_kv, grads.kv_b.values);
  backend.RmsNormBackwardWeight(ctx.stream,
                                {pending.d_c_kv, LatentPart(s, saved.qkv_a), saved.kv_inverse_rms, grads.kv_norm});
  if (s.q_rank > 0) {
    LinearBackwardWeight(ctx, pending.d_q, inputs.c_q, grads.q_b.values);
    backend.RmsNormBackwardWeight(ctx.stream,
                                  {pending.d_c_q, QueryPart(s, saved.qkv_a), saved.q_inverse_rms, grads.q_norm});
  }
  LinearBackwardWeight(ctx, pending.d_qkv_a, inputs.normed, grads.qkv_a.values);
  backend.RmsNormBackwardWeight(ctx.stream, {pending.d_normed, saved.x, saved.inverse_rms, grads.norm});
}

OperationCost MlaCost(const ModelShape& s, const RecomputeOptions& recompute) {
  OperationCost cost;
  const int64_t tokens = s.tokens();
  AddLinear(cost, tokens, s.qkv_a_width(), s.hidden);
  AddLinear(cost, tokens, s.hidden, s.value_width());
  OperationCost up;
  if (s.q_rank > 0) AddLinear(up, tokens, s.query_width(), s.q_rank);
  AddLinear(up, tokens, s.kv_width(), s.kv_rank);
  if (recompute.mla_up) up.input_gradient_gemm_flops += up.forward_gemm_flops;
  cost += up;
  // Half of the rectangles q k^T and p v; their gradients are twice that.
  cost.forward_attention_flops = tokens * s.sequence_length * s.heads * (s.nope + s.rope + s.value);
  cost.input_gradient_attention_flops = 2 * cost.forward_attention_flops;
  Arena measure = Arena::Measuring();
  AllocateMlaSaved(s, recompute, measure);
  AllocateMlaPending(s, measure);
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
