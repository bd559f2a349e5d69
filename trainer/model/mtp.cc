// Both norms write their halves of one matrix, so that a single product joins them.
#include "trainer/model/mtp.h"

namespace shoestring {
namespace {

View EmbeddingHalf(const ModelShape& s, View joined) { return joined.Columns(0, s.hidden); }
View HiddenHalf(const ModelShape& s, View joined) { return joined.Columns(s.hidden, s.hidden); }

void NormBoth(const LayerContext& ctx, const MtpJoinWeights& w, ConstView hidden, const MtpJoinSaved& saved,
              View joined, bool first) {
  const ModelShape& s = ctx.shape;
  const View none;
  ctx.backend.RmsNorm(ctx.stream, {saved.embedded,
                                   {},
                                   {},
                                   w.embedding_norm,
                                   s.norm_eps,
                                   EmbeddingHalf(s, joined),
                                   first ? saved.embedding_inverse_rms : none});
  ctx.backend.RmsNorm(
      ctx.stream,
      {hidden, {}, {}, w.hidden_norm, s.norm_eps, HiddenHalf(s, joined), first ? saved.hidden_inverse_rms : none});
}

}  // namespace

void VisitMtpJoinWeights(const std::string& prefix, int use, MtpJoinWeights& weights, WeightVisitor visit) {
  visit("model.embed_tokens.weight", use, weights.embedding);
  visit(prefix + "enorm.weight", 0, weights.embedding_norm);
  visit(prefix + "hnorm.weight", 0, weights.hidden_norm);
  visit(prefix + "eh_proj.weight", 0, weights.join);
}

MtpJoinSaved AllocateMtpJoinSaved(const ModelShape& s, const RecomputeOptions& recompute, Arena& arena) {
  const auto keep = [&](const char* name, DType dtype, int64_t rows, int64_t cols) {
    return arena.Allocate(Purpose::kActivations, name, dtype, rows, cols);
  };
  MtpJoinSaved saved;
  saved.embedded = keep("mtp.embedded", s.act, s.tokens(), s.hidden);
  saved.embedding_inverse_rms = keep("mtp.embedding_inverse_rms", DType::kF32, 1, s.tokens());
  saved.hidden_inverse_rms = keep("mtp.hidden_inverse_rms", DType::kF32, 1, s.tokens());
  if (!recompute.norms) saved.joined = keep("mtp.joined", s.act, s.tokens(), 2 * s.hidden);
  return saved;
}

MtpJoinPending AllocateMtpJoinPending(const ModelShape& s, Arena& arena) {
  MtpJoinPending pending;
  pending.d_out = arena.Allocate(Purpose::kPending, "mtp.d_out", s.act, s.tokens(), s.hidden);
  pending.d_joined = arena.Allocate(Purpose::kPending, "mtp.d_joined", s.act, s.tokens(), 2 * s.hidden);
  pending.embedding = AllocateEmbeddingPending(s, arena);
  return pending;
}

void MtpJoinForward(const LayerContext& ctx, const MtpJoinWeights& w, ConstView ids, ConstView hidden,
                    const MtpJoinSaved& saved, View out) {
  const ModelShape& s = ctx.shape;
  ArenaScope scope(ctx.scratch);
  const View joined = ctx.KeptOrScratch(saved.joined, "mtp.joined", s.tokens(), 2 * s.hidden);
  EmbeddingForward(ctx, w.embedding, ids, saved.embedded);
  NormBoth(ctx, w, hidden, saved, joined, /*first=*/true);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNT, joined, w.join, out);
}

void MtpJoinBackwardInput(const LayerContext& ctx, const MtpJoinWeights& w, ConstView hidden, const MtpJoinSaved& saved,
                          const MtpJoinPending& pending, View d_hidden) {
  const ModelShape& s = ctx.shape;
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNN, pending.d_out, w.join, pending.d_joined);
  ctx.backend.RmsNormBackwardInput(ctx.stream, {EmbeddingHalf(s, pending.d_joined),
                                                saved.embedded,
                                                w.embedding_norm,
                                                saved.embedding_inverse_rms,
                                                {},
                                                pending.embedding.d_x});
  ctx.backend.RmsNormBackwardInput(
      ctx.stream, {HiddenHalf(s, pending.d_joined), hidden, w.hidden_norm, saved.hidden_inverse_rms, {}, d_hidden});
}

void MtpJoinBackwardWeight(const LayerContext& ctx, const MtpJoinWeights& w, ConstView ids, ConstView hidden,
                           const MtpJoinSaved& saved, const MtpJoinPending& pending, const MtpJoinWeights& grads) {
  const ModelShape& s = ctx.shape;
  ArenaScope scope(ctx.scratch);
  const View joined = ctx.KeptOrScratch(saved.joined, "mtp.joined", s.tokens(), 2 * s.hidden);
  if (!saved.joined) NormBoth(ctx, w, hidden, saved, joined, /*first=*/false);
  ctx.backend.Gemm(ctx.stream, GemmLayout::kTN, pending.d_out, joined, grads.join, /*accumulate=*/true);
  ctx.backend.RmsNormBackwardWeight(ctx.stream, {EmbeddingHalf(s, pending.d_joined), saved.embedded,
                                                 saved.embedding_inverse_rms, grads.embedding_norm});
  ctx.backend.RmsNormBackwardWeight(
      ctx.stream, {HiddenHalf(s, pending.d_joined), hidden, saved.hidden_inverse_rms, grads.hidden_norm});
  EmbeddingBackwardWeight(ctx, ids, pending.embedding, grads.embedding);
}

OperationCost MtpJoinCost(const ModelShape& s, const RecomputeOptions& recompute) {
  OperationCost cost;
  AddLinear(cost, s.tokens(), s.hidden, 2 * s.hidden);
  Arena measure = Arena::Measuring();
  AllocateMtpJoinSaved(s, recompute, measure);
  AllocateMtpJoinPending(s, measure);
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
