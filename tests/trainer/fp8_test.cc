// Training under the FP8 recipe: each of its fields counts, gradients and losses follow those of BF16, and nearly all
// products are FP8's.
#include <cmath>
#include <map>

#include "configs/load.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/shape_backend.h"
#include "parallel/local_exchange.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/model/moe.h"

namespace shoestring {
namespace {

using ::testing::Gt;

// Wide enough for more than one tile of 128 in every direction, tokens included; every mechanism of the tiny model.
config::RunConfig WideConfig(const config::PrecisionConfig& precision) {
  config::RunConfig config = TinyConfig("BF16", R"(
    model { hidden: 160 heads: 4
            attention { qk_nope_head_dim: 40 qk_rope_head_dim: 8 v_head_dim: 40 q_lora_rank: 136 kv_lora_rank: 132 }
            dense_ffn: 144 moe { routed_experts: 4 expert_ffn: 136 groups: 2 groups_kept: 2 } }
    train { phase { sequence_length: 80 steps: 20 micro_batch: 4 batch { sequences: 4 }
                    learning_rate { constant: 0.0005 } } })");
  *config.mutable_precision() = precision;
  return config;
}
config::PrecisionConfig Bf16Precision() {
  config::PrecisionConfig precision;
  precision.set_mode(config::PrecisionConfig::BF16);
  precision.set_moments(config::PrecisionConfig::MOMENTS_BF16);
  return precision;
}

struct WideRun {
  explicit WideRun(const config::RunConfig& config) : backend(MakeCpuBackend({.threads = 2})) {
    auto created = Trainer::Create(config, FormulaData(config), *backend, RealClock(), {});
    CHECK(created.ok());
    trainer = *std::move(created);
  }
  StepResult Step() {
    const absl::StatusOr<const StepResult*> result = trainer->Step();
    CHECK(result.ok());
    return **result;
  }
  // Gradients of the first step, by parameter.
  std::map<std::string, std::vector<float>> Gradients() {
    TrainStep* step = *trainer->CurrentStep();
    const StepPlan plan = trainer->schedule().PlanStep({});
    HostBatch batch;
    FormulaSource source(plan.sequence_length + 2, 1);
    CHECK(PrepareBatch(source, step->batch_shape(), SampleRuns::One(0, plan.sequences), batch).ok());
    StepResult result;
    CHECK(step->ComputeGradients(plan, batch, result).ok());
    std::map<std::string, std::vector<float>> gradients;
    for (size_t i = 0; i < trainer->table().size(); ++i) {
      if (!trainer->table()[i].trained) continue;
      const View g = step->gradients().kept[i];
      gradients[trainer->table()[i].name].assign(g.as<float>(), g.as<float>() + g.elements());
    }
    return gradients;
  }
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Trainer> trainer;
};

// A field that nothing reads would leave the gradients as they are.
TEST(Fp8Test, EveryFieldOfTheRecipeChangesBits) {
  const auto base = WideRun(WideConfig(Fp8Precision())).Gradients();
  constexpr char kBoth[] = "power_of_two_attention_output: false cached_attention_output: E4M3";
  const char* const changes[] = {
      "activation_format: E5M2",
      "weight_format: E5M2",
      "gradient_format: E5M2",
      "activation_tile { columns: 256 }",
      "weight_tile { rows: 256 }",
      "weight_tile { columns: 256 }",
      "gradient_tile { columns: 256 }",
      "weight_gradient_tile { rows: 256 }",
      "weight_gradient_tile { columns: 2 }",
      "promotion_interval: 64",
      "accumulation: ACCUMULATE_HOPPER",
      "power_of_two_activation: true",
      "power_of_two_weight: true",
      "power_of_two_gradient: true",
      kBoth,
      "power_of_two_dispatch: false",
      "power_of_two_dispatch_gradient: false",
      "cached_linear_input: BF16",
      "cached_attention_output: BF16",
      "cached_swiglu_input: BF16",
      "dispatch_format: BF16",
      "dispatch_gradient_format: BF16",
  };
  for (const char* change : changes) {
    EXPECT_TRUE(WideRun(WideConfig(Fp8Precision(change))).Gradients() != base) << change;
  }
  // Of two fields that must change together, each on its own.
  EXPECT_TRUE(WideRun(WideConfig(Fp8Precision("cached_attention_output: E4M3"))).Gradients() !=
              WideRun(WideConfig(Fp8Precision(kBoth))).Gradients());
}

// Tokens that travel in BF16 are quantised where they arrive, as all inputs of linear layers are: with the same scales
// that is no difference.
TEST(Fp8Test, DispatchQuantisesAsTheExpertsWould) {
  const std::string changes = "power_of_two_dispatch: false ";
  EXPECT_TRUE(WideRun(WideConfig(Fp8Precision(changes))).Gradients() ==
              WideRun(WideConfig(Fp8Precision(changes + "dispatch_format: BF16"))).Gradients());
}

// What backward knows of a tensor is nothing to forward.
TEST(Fp8Test, CachesDoNotTouchTheLoss) {
  const StepResult base = WideRun(WideConfig(Fp8Precision())).Step();
  for (const char* change : {"cached_linear_input: BF16", "cached_linear_input: E5M2", "cached_attention_output: BF16",
                             "cached_swiglu_input: E5M2", "dispatch_gradient_format: BF16"}) {
    const StepResult result = WideRun(WideConfig(Fp8Precision(change))).Step();
    EXPECT_EQ(result.total_loss(), base.total_loss()) << change;
    EXPECT_NE(result.grad_norm, base.grad_norm) << change;
  }
}

struct Distance {
  double relative = 0;
  double cosine = 0;
};
Distance DistanceOf(const std::vector<float>& ours, const std::vector<float>& theirs) {
  double dot = 0, difference = 0, a = 0, b = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const double x = ours[i], y = theirs[i];
    dot += x * y;
    a += x * x;
    b += y * y;
    difference += (x - y) * (x - y);
  }
  return {std::sqrt(difference / b), dot / std::sqrt(a * b)};
}

// E4M3 keeps 4 bits: an element is off by 2.6 % in the mean, so a product of two such operands by some 4 %. The errors
// of the twenty products before a gradient of the first layer add up as random ones do: to 4 % * sqrt(20). All experts
// are chosen here, so that no router decides otherwise.
TEST(Fp8Test, GradientsAreNearThoseOfBf16) {
  config::RunConfig config = WideConfig(Bf16Precision());
  config.mutable_model()->mutable_moe()->set_active_experts(4);
  const auto bf16 = WideRun(config).Gradients();
  *config.mutable_precision() = Fp8Precision();
  const auto fp8 = WideRun(config).Gradients();
  double worst = 0, worst_cosine = 1;
  for (const auto& [name, gradient] : bf16) {
    const Distance d = DistanceOf(fp8.at(name), gradient);
    EXPECT_LT(d.relative, 0.25) << name;
    EXPECT_GT(d.cosine, 0.97) << name;
    worst = std::max(worst, d.relative);
    worst_cosine = std::min(worst_cosine, d.cosine);
  }
  EXPECT_GT(worst, 0.01) << "nothing was quantised";
  RecordProperty("worst_relative_error", std::to_string(worst));
  RecordProperty("worst_cosine", std::to_string(worst_cosine));
}

TEST(Fp8Test, TwentyStepsFollowBf16) {
  WideRun bf16(WideConfig(Bf16Precision())), fp8(WideConfig(Fp8Precision()));
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    const double expected = bf16.Step().loss, loss = fp8.Step().loss;
    EXPECT_NEAR(loss, expected, 0.015 * expected) << "step " << step;
    if (step == 0) first = loss;
    last = loss;
  }
  EXPECT_LT(last, first - 0.5);
}

config::RunConfig Load(const std::vector<std::string>& files) {
  const absl::StatusOr<config::LoadedConfig> loaded = config::LoadConfig(PosixFileSystem(), files, {});
  CHECK(loaded.ok());
  return loaded->config;
}
constexpr char kTinyCpu[] = "configs/recipes/tiny_cpu.textproto";
constexpr char kPreset[] = "configs/presets/fp8_v3.textproto";

TEST(Fp8Test, ThePresetIsTheReportsRecipe) {
  const config::RunConfig v3 = Load({"configs/recipes/deepseek_v3_671b.textproto"});
  const config::RunConfig tiny = Load({kTinyCpu, kPreset});
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(tiny.precision(), v3.precision()));
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(tiny.precision(), Fp8Precision()));
}

// Runs one step of `config` on nothing.
WorkCounters CountStep(const config::RunConfig& config) {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({});
  const std::unique_ptr<Backend> shapes = MakeShapeBackend(*cpu);
  const std::unique_ptr<Stream> stream = shapes->MakeStream();
  const std::vector<Parameter> table = BuildParameterTable(config.model());
  const Schedule schedule(config);
  Arena arena = Arena::Measuring();
  const PrecisionFormats formats = MakePrecisionFormats(config.precision(), DType::kBF16);
  const HeldTable held = HeldTable::Whole(table, /*copies=*/true);
  TrainState state(arena, held, {DType::kBF16, DType::kBF16, false, formats.weight});
  const RankLinks links = SingleRank(*shapes);
  TrainStep step(config, schedule, 0, state, *shapes, *stream, arena, RealClock(), links);
  StepResult result;
  CHECK(step.ComputeGradients(schedule.PlanStep({}), HostBatch(), result).ok());
  return result.work;
}

TEST(Fp8Test, NinetyPercentOfTinyCpusProductsAreFp8) {
  const WorkCounters work = CountStep(Load({kTinyCpu, kPreset}));
  const double share = static_cast<double>(work.fp8_gemm_flops) / static_cast<double>(work.gemm_flops);
  RecordProperty("share", std::to_string(share));
  EXPECT_GE(share, 0.90);
  EXPECT_LT(share, 1) << "heads, routers and the join of MTP are not";
  const WorkCounters bf16 = CountStep(Load({kTinyCpu}));
  EXPECT_EQ(bf16.fp8_gemm_flops, 0);
  EXPECT_EQ(bf16.gemm_flops, work.gemm_flops) << "precision costs no products";
}

// What is kept for backward, and what waits for a weight gradient, shrinks as the recipe says.
TEST(Fp8Test, KeepsOneByteTiles) {
  const auto peak = [](const config::PrecisionConfig& precision, Purpose purpose) {
    const config::RunConfig config = WideConfig(precision);
    const ModelShape shape = MakeModelShape(config.model(), nullptr, config.precision(), 4, 80);
    const auto exchange = MakeLocalExchange(MakeExchangeShape(shape));
    Arena arena = Arena::Measuring();
    AllocateMoeSaved(shape, {}, *exchange, arena);
    AllocateMoePending(shape, *exchange, arena);
    return static_cast<double>(arena.high_water_bytes(purpose));
  };
  EXPECT_LT(peak(Fp8Precision(), Purpose::kActivations), 0.6 * peak(Bf16Precision(), Purpose::kActivations));
  EXPECT_THAT(peak(Bf16Precision(), Purpose::kPending), Gt(peak(Fp8Precision(), Purpose::kPending)));
}

// 160 channels of a token: 160 codes and two scales, or 320 bytes of BF16; a gate weight goes with a token.
TEST(Fp8Test, TravelsInOneByteTiles) {
  const auto cost_of = [](const config::PrecisionConfig& precision) {
    const ModelShape shape = MakeModelShape(WideConfig(precision).model(), nullptr, precision, 4, 80);
    return MoeCost(shape, {}, *MakeLocalExchange(MakeExchangeShape(shape)));
  };
  const int64_t journeys = 4 * 80 * 2;
  const OperationCost fp8 = cost_of(Fp8Precision()), bf16 = cost_of(Bf16Precision());
  EXPECT_EQ(fp8.dispatch_bytes, journeys * (160 + 8 + 4));
  EXPECT_EQ(bf16.dispatch_bytes, journeys * (320 + 4));
  EXPECT_EQ(fp8.combine_backward_bytes, journeys * (160 + 8));
  EXPECT_EQ(bf16.combine_backward_bytes, journeys * 320);
  for (const OperationCost& cost : {fp8, bf16}) {
    EXPECT_EQ(cost.combine_bytes, journeys * 320);
    EXPECT_EQ(cost.dispatch_backward_bytes, journeys * (320 + 4));
  }
}

}  // namespace
}  // namespace shoestring
