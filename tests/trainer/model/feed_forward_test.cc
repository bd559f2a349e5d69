// Dense and mixture-of-experts layers, and a block of each: outputs and every gradient against the float64 definition.
#include "parallel/local_exchange.h"
#include "tests/trainer/model/harness.h"
#include "trainer/model/block.h"
#include "trainer/model/expert_sums.h"

namespace shoestring {
namespace {

constexpr char kDense[] = "model.layers.0.";
constexpr char kMoe[] = "model.layers.1.";
constexpr double kBalanceScale = 0.3;

// A gate of V3's kind, and one of V2's; with and without groups, renormalisation and shared experts.
config::ModelConfig SoftmaxGate() {
  config::ModelConfig model = TinyModel();
  config::MoeConfig& moe = *model.mutable_moe();
  moe.set_gate(config::MoeConfig::SOFTMAX);
  moe.set_renormalize(false);
  moe.set_groups(1);
  moe.set_groups_kept(1);
  moe.set_routed_scaling(1);
  return model;
}
config::ModelConfig SoftmaxRenormalisedByBestOfGroup() {
  config::ModelConfig model = TinyModel();
  config::MoeConfig& moe = *model.mutable_moe();
  moe.set_gate(config::MoeConfig::SOFTMAX);
  moe.set_group_score(config::MoeConfig::MAX);
  return model;
}
config::ModelConfig SigmoidWithoutShared() {
  config::ModelConfig model = TinyModel();
  model.mutable_moe()->set_shared_experts(0);
  model.mutable_moe()->set_renormalize(false);
  return model;
}

TEST(Mlp, AgreesWithTheDefinition) {
  for (const bool recompute : {false, true}) {
    LayerBench bench(TinyModel(), {false, false, recompute});
    const LayerContext ctx = bench.ctx();
    MlpWeights weights, grads;
    VisitMlpWeights("model.layers.0.mlp.", weights, bench.WeightBinder());
    VisitMlpWeights("model.layers.0.mlp.", grads, bench.GradientBinder());
    const ModelShape& s = bench.shape;
    const MlpSaved saved =
        AllocateMlpSaved(s, bench.recompute, {s.act, {}, false}, s.tokens(), s.dense_ffn, bench.arena);
    const MlpPending pending = AllocateMlpPending(s, s.tokens(), s.dense_ffn, bench.arena);
    Matrix x = RandomMatrix(s.tokens(), s.hidden, 1, 1);
    const Matrix direction = RandomMatrix(x.rows, x.cols, 2, 1);
    const View x_view = bench.Put(x);
    const View d_out = bench.Put(direction);
    const View out = bench.Allocate(DType::kF32, x.rows, x.cols);
    const View dx = bench.Allocate(DType::kF32, x.rows, x.cols);

    MlpForward(ctx, weights, x_view, saved, out);
    MlpBackwardInput(ctx, weights, saved, pending, d_out, dx);
    MlpBackwardWeight(ctx, x_view, saved, pending, d_out, grads);

    ExpectClose("out", ToMatrix(out), bench.reference.Mlp("model.layers.0.mlp", x), kForwardTolerance);
    const auto loss = [&] { return Dot(direction, bench.reference.Mlp("model.layers.0.mlp", x)); };
    ExpectClose("dx", ToMatrix(dx), Differences(x, loss), kGradientTolerance);
    bench.ExpectGradients(loss);
  }
}

class MoeTest : public testing::TestWithParam<std::pair<config::ModelConfig, RecomputeOptions>> {};

TEST_P(MoeTest, AgreesWithTheDefinition) {
  LayerBench bench(GetParam().first, GetParam().second);
  const LayerContext ctx = bench.ctx();
  const ModelShape& s = bench.shape;
  const auto exchange = MakeLocalExchange(MakeExchangeShape(s));
  MoeWeights weights, grads;
  VisitMoeWeights(s, std::string(kMoe) + "mlp.", weights, bench.WeightBinder());
  VisitMoeWeights(s, std::string(kMoe) + "mlp.", grads, bench.GradientBinder());
  const MoeSaved saved = AllocateMoeSaved(s, bench.recompute, *exchange, bench.arena);
  const MoePending pending = AllocateMoePending(s, *exchange, bench.arena);
  const MoeWorkspace forward = AllocateMoeWorkspace(s, {s.act, {}, false}, *exchange, bench.arena);
  const MoeWorkspace backward = AllocateMoeWorkspace(s, {s.act, {}, false}, *exchange, bench.arena);
  Matrix x = RandomMatrix(s.tokens(), s.hidden, 1, 1);
  const Matrix direction = RandomMatrix(x.rows, x.cols, 2, 1);
  const Matrix residual = RandomMatrix(x.rows, x.cols, 3, 1);
  const View x_view = bench.Put(x);
  const View u = bench.Put(residual);
  const View d_out = bench.Put(direction);
  const View out = bench.Allocate(DType::kF32, x.rows, x.cols);
  const View dx = bench.Allocate(DType::kF32, x.rows, x.cols);
  const View counts = bench.Allocate(DType::kI64, 1, s.experts);
  bench.backend->Zero(*bench.stream, counts);
  const View balance = bench.Allocate(DType::kF32, 1, s.sequences);

  MoeForwardDispatch(ctx, *exchange, weights, x_view, u, {counts, kBalanceScale, balance}, saved, forward);
  MoeForwardExperts(ctx, *exchange, weights, saved, forward);
  MoeForwardCombine(ctx, *exchange, u, saved, forward, out);
  MoeBackwardCombine(ctx, *exchange, weights, saved, pending, d_out, backward);
  MoeBackwardExperts(ctx, *exchange, weights, saved, pending, backward);
  MoeBackwardDispatch(ctx, *exchange, weights, kBalanceScale, saved, pending, backward, dx);
  MoeBackwardWeight(ctx, x_view, saved, pending, d_out, grads);
  const ExpertBatch batch{&saved, &pending};
  const MlpWeights* const experts = &grads.experts;
  ExpertGather(*exchange, 1, 1).BackwardWeight(ctx, {&batch, 1}, {&experts, 1});

  const model_reference::Routing routing = bench.reference.Choose(kMoe, x);
  std::vector<int64_t> expected_counts(s.experts);
  for (int64_t t = 0; t < s.tokens(); ++t) {
    for (int64_t k = 0; k < s.chosen; ++k) {
      EXPECT_EQ(saved.router.experts.as<int32_t>(t)[k], routing.experts[t][k]) << "token " << t;
      ++expected_counts[routing.experts[t][k]];
    }
  }
  for (int64_t e = 0; e < s.experts; ++e) EXPECT_EQ(counts.as<int64_t>()[e], expected_counts[e]);
  double balance_sum = 0;
  const Matrix routed = bench.reference.Moe(kMoe, x, routing, &balance_sum);
  ExpectClose("out", ToMatrix(out), Sum(residual, routed), kForwardTolerance);
  EXPECT_NEAR(balance.as<float>()[0] + balance.as<float>()[1], kBalanceScale * balance_sum, 1e-6);

  const auto loss = [&] {
    double sum = 0;
    const Matrix y = bench.reference.Moe(kMoe, x, routing, &sum);
    return Dot(direction, y) + kBalanceScale * sum;
  };
  ExpectClose("dx", ToMatrix(dx), Differences(x, loss), kGradientTolerance);
  bench.ExpectGradients(loss);
}

INSTANTIATE_TEST_SUITE_P(Kinds, MoeTest,
                         testing::Values(std::make_pair(TinyModel(), RecomputeOptions{}),
                                         std::make_pair(TinyModel(), RecomputeOptions{true, true, true}),
                                         std::make_pair(SoftmaxGate(), RecomputeOptions{}),
                                         std::make_pair(SoftmaxRenormalisedByBestOfGroup(), RecomputeOptions{}),
                                         std::make_pair(SigmoidWithoutShared(), RecomputeOptions{})));

// A whole block: the residual paths, and the order of parts.
class BlockTest : public testing::TestWithParam<std::pair<bool, RecomputeOptions>> {};

TEST_P(BlockTest, AgreesWithTheDefinition) {
  const bool is_moe = GetParam().first;
  const std::string prefix = is_moe ? kMoe : kDense;
  LayerBench bench(TinyModel(), GetParam().second);
  const LayerContext ctx = bench.ctx();
  const ModelShape& s = bench.shape;
  const auto exchange = MakeLocalExchange(MakeExchangeShape(s));
  BlockWeights weights, grads;
  VisitBlockWeights(s, is_moe, prefix, weights, bench.WeightBinder());
  VisitBlockWeights(s, is_moe, prefix, grads, bench.GradientBinder());
  const BlockSaved saved = AllocateBlockSaved(s, bench.recompute, is_moe, *exchange, bench.arena);
  const BlockPending pending = AllocateBlockPending(s, is_moe, *exchange, bench.arena);
  const BlockWorkspace workspace =
      AllocateBlockWorkspace(s, bench.recompute, {s.act, {}, false}, *exchange, bench.arena);
  Matrix x = RandomMatrix(s.tokens(), s.hidden, 1, 1);
  const Matrix direction = RandomMatrix(x.rows, x.cols, 2, 1);
  FromMatrix(x, saved.attention.x);
  FromMatrix(direction, pending.d_out);
  const View out = bench.Allocate(DType::kF32, x.rows, x.cols);
  const View dx = bench.Allocate(DType::kF32, x.rows, x.cols);
  const View counts = bench.Allocate(DType::kI64, 1, s.experts);
  bench.backend->Zero(*bench.stream, counts);
  const View balance = bench.Allocate(DType::kF32, 1, s.sequences);

  const BlockRun run{ctx, *exchange, weights, is_moe, {counts, kBalanceScale, balance}, saved, workspace};
  for (const BlockPart part : kForwardParts) BlockForward(run, part, out);
  for (const BlockPart part : kBackwardParts) BlockBackwardInput(run, part, pending, dx);
  BlockBackwardWeight(run, pending, grads);
  if (is_moe) {
    const ExpertBatch batch{&saved.moe, &pending.moe};
    const MlpWeights* const experts = &grads.moe.experts;
    ExpertGather(*exchange, 1, 1).BackwardWeight(ctx, {&batch, 1}, {&experts, 1});
  }

  std::map<std::string, model_reference::Routing> routings;  // filled by the first call, then fixed
  const auto forward = [&](double* sum) { return bench.reference.Block(prefix, is_moe, x, {}, routings, sum); };
  double unused = 0;
  ExpectClose("out", ToMatrix(out), forward(&unused), kForwardTolerance);
  const auto loss = [&] {
    double sum = 0;
    const Matrix y = forward(&sum);
    return Dot(direction, y) + kBalanceScale * sum;
  };
  ExpectClose("dx", ToMatrix(dx), Differences(x, loss), kGradientTolerance);
  bench.ExpectGradients(loss);
}

INSTANTIATE_TEST_SUITE_P(Kinds, BlockTest,
                         testing::Values(std::make_pair(false, RecomputeOptions{}),
                                         std::make_pair(false, RecomputeOptions{true, true, true}),
                                         std::make_pair(true, RecomputeOptions{}),
                                         std::make_pair(true, RecomputeOptions{true, true, true})));

}  // namespace
}  // namespace shoestring
