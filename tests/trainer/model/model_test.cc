// The whole model: losses, logits and gradients against the float64 definition; what must not change a bit; costs.
#include "trainer/model/model.h"

#include <ostream>

#include "tests/trainer/fp8_recipe.h"
#include "tests/trainer/model/model_bench.h"

namespace shoestring {
namespace {

config::ModelConfig TwoModules() {
  config::ModelConfig model = TinyModel();
  model.set_layers(3);
  model.set_mtp_depth(2);
  return model;
}
config::ModelConfig AllDense() {
  config::ModelConfig model = TinyModel();
  model.clear_moe();
  model.set_dense_layers(2);
  return model;
}

class ModelTest : public testing::TestWithParam<BenchOptions> {};

TEST_P(ModelTest, LossesAgreeWithTheDefinition) {
  ModelBench bench(GetParam());
  const auto model = bench.MakeStage(WholeModel(bench.shape));
  bench.TrainBoth(*model);
  for (int wave = 0; wave < 2; ++wave) {
    std::map<std::string, model_reference::Routing> routings;
    const auto expected = bench.reference.Run(bench.host_tokens[wave], routings);
    const double* losses = bench.accumulators.losses.as<double>(2 + wave);
    for (size_t k = 0; k < expected.loss.size(); ++k) {
      double sum = 0;
      for (const double l : expected.loss[k]) sum += l;
      // Sums of a dozen FP32 losses of size 3: below 1e-5 of the sum.
      EXPECT_NEAR(losses[k], sum, 1e-5 * sum) << "wave " << wave << " depth " << k;
    }
    double balance = 0;
    for (int64_t c = 1 + bench.shape.mtp_depth; c < LossColumns(bench.shape); ++c) balance += losses[c];
    EXPECT_NEAR(balance, kBenchScales.balance * expected.balance, 1e-5);
  }
}

// Of every parameter every element, or a spread of 16 of a large one (layers are tested whole); gradients of several
// uses are added here.
TEST_P(ModelTest, GradientsAgreeWithDifferences) {
  ModelBench bench(GetParam());
  const auto model = bench.MakeStage(WholeModel(bench.shape));
  bench.TrainBoth(*model);
  std::vector<std::map<std::string, model_reference::Routing>> routings(2);
  bench.ReferenceLoss(routings);  // chooses
  for (size_t i = 0; i < bench.table.size(); ++i) {
    const Parameter& p = bench.table[i];
    if (!p.trained) continue;
    Matrix ours = ToMatrix(bench.gradients[i][0]);
    for (size_t use = 1; use < bench.gradients[i].size(); ++use) {
      ours = Sum(ours, ToMatrix(bench.gradients[i][use]));
    }
    double largest = 0;
    for (const double g : ours.values) largest = std::max(largest, std::abs(g));
    EXPECT_GT(largest, 0) << p.name;
    Matrix& w = bench.reference.w.at(p.name);
    const size_t step = std::max<size_t>(1, w.values.size() / 16);
    for (size_t e = 0; e < w.values.size(); e += step) {
      const double kept = w.values[e];
      w.values[e] = kept + 1e-5;
      const double above = bench.ReferenceLoss(routings);
      w.values[e] = kept - 1e-5;
      const double below = bench.ReferenceLoss(routings);
      w.values[e] = kept;
      // Five times a layer's tolerance: the chain is that much longer.
      ASSERT_NEAR(ours.values[e], (above - below) / 2e-5, 5 * kGradientTolerance * largest) << p.name << " " << e;
    }
  }
}

TEST_P(ModelTest, EvaluationAgreesAndCountsNothing) {
  ModelBench bench(GetParam());
  const auto model = bench.MakeStage(WholeModel(bench.shape));
  const std::string before = bench.Bits();
  const View loss = bench.Allocate(DType::kF32, 1, bench.shape.tokens());
  const View logits = bench.Allocate(DType::kF32, 1, bench.shape.vocab);
  model->Evaluate(bench.tokens[1], 0, {}, {}, loss);
  model->Logits(bench.tokens[1], 1, 7, logits);
  std::map<std::string, model_reference::Routing> routings;
  const auto expected = bench.reference.Run(bench.host_tokens[1], routings);
  Matrix expected_loss(1, bench.shape.tokens());
  expected_loss.values = expected.loss[0];
  ExpectClose("loss", ToMatrix(loss), expected_loss, 1e-5);
  const Matrix all = bench.reference.Logits("model.norm.weight", expected.hidden);
  ExpectClose("logits", ToMatrix(logits), model_reference::Rows(all, 7, 1), 1e-5);
  EXPECT_EQ(bench.Bits(), before);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ModelTest,
                         testing::Values(BenchOptions{}, BenchOptions{.documents = true},
                                         BenchOptions{.model = TwoModules(), .recompute = {true, true, true}},
                                         BenchOptions{.model = AllDense()}));

std::string TrainedBits(const BenchOptions& options) {
  ModelBench bench(options);
  const auto model = bench.MakeStage(WholeModel(bench.shape));
  bench.TrainBoth(*model);
  return bench.Bits();
}

struct NamedPrecision {
  const char* name;
  config::PrecisionConfig precision;
};
std::ostream& operator<<(std::ostream& out, const NamedPrecision& p) { return out << p.name; }
class BitsTest : public testing::TestWithParam<NamedPrecision> {};

TEST_P(BitsTest, RecomputeChangesNone) {
  const std::string kept = TrainedBits({.precision = GetParam().precision});
  for (const RecomputeOptions& recompute : {RecomputeOptions{true, false, false}, RecomputeOptions{false, true, false},
                                            RecomputeOptions{false, false, true}, RecomputeOptions{true, true, true}}) {
    EXPECT_TRUE(TrainedBits({.precision = GetParam().precision, .recompute = recompute}) == kept)
        << recompute.norms << recompute.mla_up << recompute.swiglu;
  }
}

TEST_P(BitsTest, ThreadsChangeNone) {
  const std::string one = TrainedBits({.precision = GetParam().precision, .threads = 1});
  EXPECT_TRUE(TrainedBits({.precision = GetParam().precision, .threads = 2}) == one);
  EXPECT_TRUE(TrainedBits({.precision = GetParam().precision, .threads = 3}) == one);
}

// Both micro-batches alive, input gradients of both before the weight gradients of either.
TEST_P(BitsTest, DeferringWeightGradientsChangesNone) {
  ModelBench bench({.precision = GetParam().precision});
  const auto model = bench.MakeStage(WholeModel(bench.shape), /*pending_slots=*/2);
  for (int wave = 0; wave < 2; ++wave) model->Forward({1, wave}, bench.tokens[wave], wave, {}, {});
  for (int wave = 1; wave >= 0; --wave) model->BackwardInput({1, wave}, bench.tokens[wave], wave, {}, {});
  for (int wave = 0; wave < 2; ++wave) model->BackwardWeight({1, wave}, bench.tokens[wave], wave);
  EXPECT_TRUE(bench.Bits() == TrainedBits({.precision = GetParam().precision}));
}

TEST_P(BitsTest, CuttingIntoStagesChangesNone) {
  const BenchOptions options{.model = TwoModules(), .precision = GetParam().precision};
  ModelBench bench(options);
  const int64_t tokens = bench.shape.tokens();
  std::vector<std::unique_ptr<StageModel>> stages;
  stages.push_back(bench.MakeStage({0, 0, true, false}));
  stages.push_back(bench.MakeStage({0, 2, false, false}));
  stages.push_back(bench.MakeStage({2, 1, false, true}));
  std::vector<View> hidden, d_hidden;
  for (int i = 0; i < 2; ++i) {
    hidden.push_back(bench.Allocate(bench.shape.act, tokens, bench.shape.hidden));
    d_hidden.push_back(bench.Allocate(bench.shape.act, tokens, bench.shape.hidden));
  }
  for (int wave = 0; wave < 2; ++wave) {
    const MicroBatchTokens& batch = bench.tokens[wave];
    stages[0]->Forward({1, wave}, batch, wave, {}, hidden[0]);
    stages[1]->Forward({1, wave}, batch, wave, hidden[0], hidden[1]);
    stages[2]->Forward({1, wave}, batch, wave, hidden[1], {});
    stages[2]->BackwardInput({1, wave}, batch, wave, {}, d_hidden[1]);
    stages[1]->BackwardInput({1, wave}, batch, wave, d_hidden[1], d_hidden[0]);
    stages[0]->BackwardInput({1, wave}, batch, wave, d_hidden[0], {});
    for (const auto& stage : stages) stage->BackwardWeight({1, wave}, batch, wave);
  }
  ModelBench whole(options);
  const auto model = whole.MakeStage(WholeModel(whole.shape));
  whole.TrainBoth(*model);
  EXPECT_TRUE(bench.Bits() == whole.Bits());
}

// FP8 also where inputs are kept otherwise than forward multiplies them, and where nothing is quantised on its way.
INSTANTIATE_TEST_SUITE_P(
    Precisions, BitsTest,
    testing::Values(NamedPrecision{"FP32", Precision(config::PrecisionConfig::FP32)},
                    NamedPrecision{"BF16", Precision(config::PrecisionConfig::BF16)},
                    NamedPrecision{"FP8", Fp8Precision()},
                    NamedPrecision{"FP8KeepsBF16", Fp8Precision("cached_linear_input: BF16 cached_swiglu_input: BF16 "
                                                                "cached_attention_output: BF16 dispatch_format: BF16 "
                                                                "dispatch_gradient_format: BF16")},
                    NamedPrecision{"FP8KeepsE5M2", Fp8Precision("cached_linear_input: E5M2 cached_swiglu_input: E5M2 "
                                                                "cached_attention_output: E4M3 dispatch_format: BF16")},
                    NamedPrecision{"FP8OperandsE5M2", Fp8Precision("activation_format: E5M2 gradient_format: E5M2 "
                                                                   "dispatch_gradient_format: E5M2")},
                    NamedPrecision{"FP8Hopper", Fp8Precision("accumulation: ACCUMULATE_HOPPER")}),
    [](const auto& info) { return std::string(info.param.name); });

// BF16 keeps 8 bits, so a tensor is good to about 1/256; through some ten layers of products that average it, losses
// come within half a percent and gradients within a few.
TEST(Model, Bf16IsCloseToFp32) {
  ModelBench fp32({});
  ModelBench bf16({.precision = Precision(config::PrecisionConfig::BF16)});
  for (ModelBench* bench : {&fp32, &bf16}) {
    const auto model = bench->MakeStage(WholeModel(bench->shape));
    bench->TrainBoth(*model);
  }
  for (int64_t column = 0; column < LossColumns(fp32.shape); ++column) {
    const double expected = fp32.accumulators.losses.as<double>(2)[column];
    EXPECT_NEAR(bf16.accumulators.losses.as<double>(2)[column], expected, 5e-3 * expected) << column;
  }
  for (size_t i = 0; i < fp32.table.size(); ++i) {
    for (size_t use = 0; use < fp32.gradients[i].size(); ++use) {
      const Matrix a = ToMatrix(fp32.gradients[i][use]);
      const Matrix b = ToMatrix(bf16.gradients[i][use]);
      EXPECT_GT(Dot(a, b) / std::sqrt(Dot(a, a) * Dot(b, b)), 0.97) << fp32.table[i].name << " " << use;
    }
  }
}

// What a step needs is measured by running it on nothing; what a layer declares is what it does.
class CostTest : public testing::TestWithParam<NamedPrecision> {};

TEST_P(CostTest, MeasuredAndDeclaredAreWhatARunDoes) {
  for (const RecomputeOptions& recompute : {RecomputeOptions{}, RecomputeOptions{true, true, true}}) {
    ModelBench bench({.model = TwoModules(), .precision = GetParam().precision, .recompute = recompute});
    const int64_t before = bench.arena.high_water_bytes();
    const auto model = bench.MakeStage(WholeModel(bench.shape));
    const int64_t activations = bench.arena.high_water_bytes(Purpose::kActivations);
    const int64_t pending = bench.arena.high_water_bytes(Purpose::kPending);
    bench.arena.Freeze();
    bench.backend->ResetWork();
    bench.TrainBoth(*model);
    const WorkCounters done = bench.backend->work();

    const OperationCost cost = model->Cost();
    EXPECT_EQ(done.gemm_flops,
              2 * (cost.forward_gemm_flops + cost.input_gradient_gemm_flops + cost.weight_gradient_gemm_flops));
    EXPECT_EQ(done.attention_flops, 2 * (cost.forward_attention_flops + cost.input_gradient_attention_flops));
    EXPECT_EQ(pending, cost.pending_bytes);
    EXPECT_LE(activations, kBenchSlots * cost.saved_bytes);
    EXPECT_GT(activations, kBenchSlots * cost.saved_bytes * 9 / 10);  // plans are counted as exchange

    const auto shapes = MakeShapeBackend(*bench.backend);
    const auto stream = shapes->MakeStream();
    Arena measuring = Arena::Measuring();
    StageModel measured(*shapes, *stream, measuring, bench.shape, bench.table, WholeModel(bench.shape), recompute,
                        *bench.exchange);
    measured.Allocate(kBenchSlots, 1);
    measured.SetWeights(bench.weights);
    measured.SetGradients(bench.gradients);
    measured.SetStep(kBenchScales, bench.accumulators);
    bench.TrainBoth(measured);
    EXPECT_EQ(measuring.high_water_bytes(), bench.arena.high_water_bytes() - before);
    EXPECT_EQ(shapes->work().gemm_flops, done.gemm_flops);
    EXPECT_EQ(shapes->work().attention_flops, done.attention_flops);
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, CostTest,
                         testing::Values(NamedPrecision{"FP32", Precision(config::PrecisionConfig::FP32)},
                                         NamedPrecision{"FP8", Fp8Precision()}),
                         [](const auto& info) { return std::string(info.param.name); });

// The parameters of the stages are those of the table; embedding and head are in two stages when modules use both.
TEST(Model, StagesShareOutTheTable) {
  ModelBench bench({.model = TwoModules()});
  std::vector<int> holders(bench.table.size());
  for (const StagePlacement& placement : {StagePlacement{0, 1, true, false}, StagePlacement{1, 2, false, true}}) {
    const auto stage = bench.MakeStage(placement);
    for (const int i : stage->parameters()) ++holders[i];
  }
  for (size_t i = 0; i < holders.size(); ++i) {
    EXPECT_EQ(holders[i], bench.table[i].name == "model.embed_tokens.weight" ? 2 : 1) << bench.table[i].name;
  }
}

}  // namespace
}  // namespace shoestring
