// Attention, with and without query latent, with YaRN: outputs and every gradient against the float64 definition.
#include "trainer/model/mla.h"

#include "tests/trainer/model/harness.h"

namespace shoestring {
namespace {

constexpr char kPrefix[] = "model.layers.0.";

config::ModelConfig WithoutLatent() {
  config::ModelConfig model = TinyModel();
  model.mutable_attention()->set_q_lora_rank(0);
  return model;
}
config::ModelConfig WithYarn() {
  config::ModelConfig model = TinyModel();
  config::YarnConfig& yarn = *model.mutable_yarn();
  yarn.set_factor(4);
  yarn.set_original_length(64);
  yarn.set_beta_fast(8);
  yarn.set_beta_slow(0.5);
  yarn.set_mscale(1);
  yarn.set_mscale_all_dim(1);
  return model;
}

class MlaTest : public testing::TestWithParam<std::pair<config::ModelConfig, RecomputeOptions>> {};

TEST_P(MlaTest, AgreesWithTheDefinition) {
  LayerBench bench(GetParam().first, GetParam().second);
  const LayerContext ctx = bench.ctx();
  MlaWeights weights, grads;
  VisitMlaWeights(bench.shape, kPrefix, weights, bench.WeightBinder());
  VisitMlaWeights(bench.shape, kPrefix, grads, bench.GradientBinder());
  const MlaSaved saved = AllocateMlaSaved(bench.shape, bench.recompute, bench.arena);
  const MlaPending pending = AllocateMlaPending(bench.shape, bench.arena);
  Matrix x = RandomMatrix(bench.shape.tokens(), bench.shape.hidden, 1, 1);
  const Matrix direction = RandomMatrix(x.rows, x.cols, 2, 1);
  const Matrix residual = RandomMatrix(x.rows, x.cols, 3, 1);
  FromMatrix(x, saved.x);
  FromMatrix(direction, pending.d_out);
  const View out = bench.Allocate(DType::kF32, x.rows, x.cols);
  const View dx = bench.Allocate(DType::kF32, x.rows, x.cols);

  MlaForward(ctx, weights, saved, out);
  MlaBackwardInput(ctx, weights, saved, pending, bench.Put(residual), dx);
  MlaBackwardWeight(ctx, weights, saved, pending, grads);

  ExpectClose("out", ToMatrix(out), bench.reference.Mla(kPrefix, x, {}), kForwardTolerance);
  const auto loss = [&] { return Dot(direction, bench.reference.Mla(kPrefix, x, {})); };
  ExpectClose("dx", ToMatrix(dx), Sum(Differences(x, loss), residual), kGradientTolerance);
  bench.ExpectGradients(loss);
}

INSTANTIATE_TEST_SUITE_P(Kinds, MlaTest,
                         testing::Values(std::make_pair(TinyModel(), RecomputeOptions{}),
                                         std::make_pair(TinyModel(), RecomputeOptions{true, true, true}),
                                         std::make_pair(TinyModel(), RecomputeOptions{false, true, false}),
                                         std::make_pair(WithoutLatent(), RecomputeOptions{}),
                                         std::make_pair(WithoutLatent(), RecomputeOptions{true, true, true}),
                                         std::make_pair(WithYarn(), RecomputeOptions{})));

}  // namespace
}  // namespace shoestring
