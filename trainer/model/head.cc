// Logits live in scratch, a block of rows at a time: rows are independent, so blocks never change a bit.
#include "trainer/model/head.h"

#include <algorithm>

namespace shoestring {
namespace {

constexpr int64_t kRowsAtOnce = 1024;  // 129280 f32 logits each: half a gigabyte

// The norm, then for each block of rows logits and cross-entropy; d_logits may be empty.
void NormAndLoss(const LayerContext& ctx, const HeadWeights& w, CrossEntropyArgs args, const HeadSaved& saved) {
  const ModelShape& s = ctx.shape;
  ArenaScope scope(ctx.scratch);
  const View normed = ctx.KeptOrScratch(saved.normed, "head.normed", s.tokens(), s.hidden);
  ctx.backend.RmsNorm(ctx.stream, {saved.x, {}, {}, w.norm, s.norm_eps, normed, saved.inverse_rms});
  const View logits = ctx.Scratch("head.logits", DType::kF32, std::min(s.tokens(), kRowsAtOnce), s.vocab);
  for (int64_t row = 0; row < s.tokens(); row += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, s.tokens() - row);
    CrossEntropyArgs block = args;
    block.logits = logits.Rows(0, rows);
    block.targets = args.targets.Columns(row, rows);
    block.loss = args.loss.Columns(row, rows);
    if (args.d_logits) block.d_logits = args.d_logits.Rows(row, rows);
    ctx.backend.Gemm(ctx.stream, GemmLayout::kNT, normed.Rows(row, rows), w.matrix, logits.Rows(0, rows));
    ctx.backend.CrossEntropy(ctx.stream, block);
  }
}

}  // namespace

void VisitHeadWeights(const std::string& norm_name, int use, HeadWeights& weights, WeightVisitor visit) {
  visit(norm_name, 0, weights.norm);
  visit("lm_head.weight", use, weights.matrix);
}

HeadSaved AllocateHeadSaved(const ModelShape& s, const RecomputeOptions& recompute, Arena& arena) {
  const auto keep = [&](const char* name, DType dtype, int64_t rows, int64_t cols) {
    return arena.Allocate(Purpose::kActivations, name, dtype, rows, cols);
  };
  HeadSaved saved;
  saved.x = keep("head.x", s.act, s.tokens(), s.hidden);
  saved.inverse_rms = keep("head.inverse_rms", DType::kF32, 1, s.tokens());
  if (!recompute.norms) saved.normed = keep("head.normed", s.act, s.tokens(), s.hidden);
  saved.d_logits = keep("head.d_logits", s.act, s.tokens(), s.vocab);
  return saved;
}

HeadPending AllocateHeadPending(const ModelShape& s, Arena& arena) {
  return {arena.Allocate(Purpose::kPending, "head.d_normed", s.act, s.tokens(), s.hidden)};
}

void HeadForward(const LayerContext& ctx, const HeadWeights& w, ConstView targets, double loss_scale,
                 const HeadSaved& saved, View loss) {
  NormAndLoss(ctx, w, {{}, targets, loss_scale, loss, saved.d_logits}, saved);
}

void HeadLoss(const LayerContext& ctx, const HeadWeights& w, ConstView targets, const HeadSaved& saved, View loss) {
  NormAndLoss(ctx, w, {{}, targets, 0, loss, {}}, saved);
}

void HeadLogits(const LayerContext& ctx, const HeadWeights& w, int64_t row, const HeadSaved& saved, View logits) {
  ArenaScope scope(ctx.scratch);
  const View normed = ctx.Scratch("head.normed_row", ctx.shape.act, 1, ctx.shape.hidden);
  ctx.backend.RmsNorm(ctx.stream, {saved.x.Rows(row, 1), {}, {}, w.norm, ctx.shape.norm_eps, normed, {}});
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNT, normed, w.matrix, logits);
}

void HeadBackwardInput(const LayerContext& ctx, const HeadWeights& w, const HeadSaved& saved,
                       const HeadPending& pending, ConstView add, View dx) {
  ctx.backend.Gemm(ctx.stream, GemmLayout::kNN, saved.d_logits, w.matrix, pending.d_normed);
  ctx.backend.RmsNormBackwardInput(ctx.stream, {pending.d_normed, saved.x, w.norm, saved.inverse_rms, add, dx});
}

void HeadBackwardWeight(const LayerContext& ctx, const HeadWeights& w, const HeadSaved& saved,
                        const HeadPending& pending, const HeadWeights& grads) {
  const ModelShape& s = ctx.shape;
  ArenaScope scope(ctx.scratch);
  const View normed = ctx.KeptOrScratch(saved.normed, "head.normed", s.tokens(), s.hidden);
  if (!saved.normed) ctx.backend.RmsNorm(ctx.stream, {saved.x, {}, {}, w.norm, s.norm_eps, normed, {}});
  ctx.backend.Gemm(ctx.stream, GemmLayout::kTN, saved.d_logits, normed, grads.matrix, /*accumulate=*/true);
  ctx.backend.RmsNormBackwardWeight(ctx.stream, {pending.d_normed, saved.x, saved.inverse_rms, grads.norm});
}

OperationCost HeadCost(const ModelShape& s, const RecomputeOptions& recompute) {
  OperationCost cost;
  AddLinear(cost, s.tokens(), s.vocab, s.hidden);
  Arena measure = Arena::Measuring();
  AllocateHeadSaved(s, recompute, measure);
  AllocateHeadPending(s, measure);
  cost.saved_bytes = measure.high_water_bytes(Purpose::kActivations);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
