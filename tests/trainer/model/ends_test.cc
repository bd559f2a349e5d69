// The ends of the model: embedding, the beginning of an MTP module, the head; values and gradients against the float64
// definition.
#include "tests/trainer/model/harness.h"
#include "trainer/model/embedding.h"
#include "trainer/model/head.h"
#include "trainer/model/mtp.h"

namespace shoestring {
namespace {

// Repeats itself, so that rows of the embedding are added to more than once.
const std::vector<int> kIds = {3, 1, 18, 3, 0, 7, 7, 2, 3, 11, 18, 5};
const std::vector<int> kTargets = {1, 18, -1, 0, 7, 7, 2, 3, 11, 18, 5, -1};

View PutIds(LayerBench& bench, const std::vector<int>& ids) {
  const View view = bench.Allocate(DType::kI32, 1, static_cast<int64_t>(ids.size()));
  std::copy(ids.begin(), ids.end(), view.as<int32_t>());
  return view;
}

TEST(Embedding, LooksUpAndAddsBack) {
  LayerBench bench(TinyModel());
  const ModelShape& s = bench.shape;
  View table, d_table;
  bench.WeightBinder()("model.embed_tokens.weight", 0, table);
  bench.GradientBinder()("model.embed_tokens.weight", 0, d_table);
  const EmbeddingPending pending = AllocateEmbeddingPending(s, bench.arena);
  const Matrix direction = RandomMatrix(s.tokens(), s.hidden, 2, 1);
  FromMatrix(direction, pending.d_x);
  const View ids = PutIds(bench, kIds);
  const View x = bench.Allocate(DType::kF32, s.tokens(), s.hidden);
  EmbeddingForward(bench.ctx(), table, ids, x);
  EmbeddingBackwardWeight(bench.ctx(), ids, pending, d_table);
  ExpectClose("x", ToMatrix(x), bench.reference.Embed(kIds), 0);
  bench.ExpectGradients([&] { return Dot(direction, bench.reference.Embed(kIds)); });
}

TEST(Head, AgreesWithTheDefinition) {
  constexpr double kScale = 0.25;
  for (const bool recompute : {false, true}) {
    LayerBench bench(TinyModel(), {recompute, false, false});
    const ModelShape& s = bench.shape;
    const LayerContext ctx = bench.ctx();
    HeadWeights weights, grads;
    VisitHeadWeights("model.norm.weight", 0, weights, bench.WeightBinder());
    VisitHeadWeights("model.norm.weight", 0, grads, bench.GradientBinder());
    const HeadSaved saved = AllocateHeadSaved(s, bench.recompute, bench.arena);
    const HeadPending pending = AllocateHeadPending(s, bench.arena);
    Matrix x = RandomMatrix(s.tokens(), s.hidden, 1, 1);
    const Matrix residual = RandomMatrix(s.tokens(), s.hidden, 2, 0.1);
    FromMatrix(x, saved.x);
    const View loss_view = bench.Allocate(DType::kF32, 1, s.tokens());
    const View only_loss = bench.Allocate(DType::kF32, 1, s.tokens());
    const View dx = bench.Put(residual);
    const View targets = PutIds(bench, kTargets);
    const View logits = bench.Allocate(DType::kF32, 1, s.vocab);

    HeadForward(ctx, weights, targets, kScale, saved, loss_view);
    HeadBackwardInput(ctx, weights, saved, pending, dx, dx);
    HeadBackwardWeight(ctx, weights, saved, pending, grads);
    HeadLoss(ctx, weights, targets, saved, only_loss);
    HeadLogits(ctx, weights, 4, saved, logits);

    const auto losses = [&] { return bench.reference.Loss("model.norm.weight", x, kTargets); };
    Matrix expected(1, s.tokens());
    expected.values = losses();
    ExpectClose("loss", ToMatrix(loss_view), expected, kForwardTolerance);
    ExpectClose("loss alone", ToMatrix(only_loss), ToMatrix(loss_view), 0);
    ExpectClose("logits", ToMatrix(logits), Rows(bench.reference.Logits("model.norm.weight", x), 4, 1),
                kForwardTolerance);
    const auto loss = [&] {
      double sum = 0;
      for (const double l : losses()) sum += l;
      return kScale * sum;
    };
    ExpectClose("dx", ToMatrix(dx), Sum(Differences(x, loss), residual), kGradientTolerance);
    bench.ExpectGradients(loss);
  }
}

TEST(MtpJoin, AgreesWithTheDefinition) {
  const std::string prefix = "model.layers.2.";
  for (const bool recompute : {false, true}) {
    LayerBench bench(TinyModel(), {recompute, false, false});
    const ModelShape& s = bench.shape;
    const LayerContext ctx = bench.ctx();
    MtpJoinWeights weights, grads;
    VisitMtpJoinWeights(prefix, 1, weights, bench.WeightBinder());
    VisitMtpJoinWeights(prefix, 1, grads, bench.GradientBinder());
    const MtpJoinSaved saved = AllocateMtpJoinSaved(s, bench.recompute, bench.arena);
    const MtpJoinPending pending = AllocateMtpJoinPending(s, bench.arena);
    Matrix hidden = RandomMatrix(s.tokens(), s.hidden, 1, 1);
    const Matrix direction = RandomMatrix(s.tokens(), s.hidden, 2, 1);
    FromMatrix(direction, pending.d_out);
    const View hidden_view = bench.Put(hidden);
    const View ids = PutIds(bench, kIds);
    const View out = bench.Allocate(DType::kF32, s.tokens(), s.hidden);
    const View d_hidden = bench.Allocate(DType::kF32, s.tokens(), s.hidden);

    MtpJoinForward(ctx, weights, ids, hidden_view, saved, out);
    MtpJoinBackwardInput(ctx, weights, hidden_view, saved, pending, d_hidden);
    MtpJoinBackwardWeight(ctx, weights, ids, hidden_view, saved, pending, grads);

    ExpectClose("out", ToMatrix(out), bench.reference.Join(prefix, kIds, hidden), kForwardTolerance);
    const auto loss = [&] { return Dot(direction, bench.reference.Join(prefix, kIds, hidden)); };
    ExpectClose("d_hidden", ToMatrix(d_hidden), Differences(hidden, loss), kGradientTolerance);
    bench.ExpectGradients(loss);
  }
}

}  // namespace
}  // namespace shoestring
