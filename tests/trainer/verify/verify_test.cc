// Layouts that give the bits of one rank, and ranks that do not: which tensor, step and rank is named.
#include "trainer/verify/verify.h"

#include <limits>
#include <map>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/timing_backend.h"
#include "tests/trainer/gated_backend.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/nan_guard.h"
#include "trainer/verify/verdict.h"

namespace shoestring {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// Computes rightly but for one element of one call.
class SpoiledBackend final : public TimingBackend {
 public:
  enum class Where { kAdamW, kExpertWeightGradient, kCrossEntropy };
  // Adds `by` to the last element of the `call`-th result (from 1) of that kind that has `elements` elements.
  struct Spoil {
    Where where = Where::kAdamW;
    int64_t elements = 0;
    int call = 1;
    float by = 1.0f;
  };

  SpoiledBackend(std::unique_ptr<Backend> inner, const Spoil& spoil)
      : TimingBackend(*inner, RealClock()), inner_(std::move(inner)), spoil_(spoil) {}

 private:
  void SpoilIf(Where where, View x) {
    if (where != spoil_.where || x.elements() != spoil_.elements || ++calls_ != spoil_.call) return;
    x.as<float>(x.rows - 1)[x.cols - 1] += spoil_.by;
  }
  void DoAdamW(Stream& stream, const AdamWArgs& args) override {
    inner_->AdamW(stream, args);
    SpoilIf(Where::kAdamW, args.master);
  }
  void DoGroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b, View c,
                     bool accumulate, const Fp8Accumulation& how) override {
    inner_->GroupedGemm(stream, layout, segments, a, b, c, accumulate, how);
    if (accumulate) SpoilIf(Where::kExpertWeightGradient, c);
  }
  void DoCrossEntropy(Stream& stream, const CrossEntropyArgs& args) override {
    inner_->CrossEntropy(stream, args);
    SpoilIf(Where::kCrossEntropy, args.loss);
  }

  const std::unique_ptr<Backend> inner_;
  const Spoil spoil_;
  int calls_ = 0;
};

using Where = SpoiledBackend::Where;

config::RunConfig ConfigOf(const std::string& layout, const std::string& mode = "FP32") {
  return TinyConfig(mode, absl::StrCat(R"(
    train { lanes: 4 expert_lanes: 1 phase { sequence_length: 12 steps: 3 micro_batch: 1 batch { sequences: 8 }
            learning_rate { constant: 0.003 } } }
    layout { )",
                                       layout, " }"));
}

VerifyOptions Options() {
  VerifyOptions options;
  options.instruction_set = std::string(IsaName(DefaultIsa()));
  options.make_backend = [](std::optional<Rank>) { return MakeCpuBackend({.threads = 1, .spin = 0}); };
  return options;
}

VerifyOptions Spoiled(Rank rank, const SpoiledBackend::Spoil& spoil) {
  VerifyOptions options = Options();
  options.make_backend = [=](std::optional<Rank> r) -> std::unique_ptr<Backend> {
    std::unique_ptr<Backend> right = MakeCpuBackend({.threads = 1, .spin = 0});
    if (r != rank) return right;
    return std::make_unique<SpoiledBackend>(std::move(right), spoil);
  };
  return options;
}

absl::StatusOr<VerifyReport> VerifyIt(const config::RunConfig& config, const VerifyOptions& options) {
  return VerifyLayout(config, FormulaData(config), RealClock(), options);
}

std::string Verdict(const config::RunConfig& config, const VerifyReport& report) {
  return VerdictText(report, *Mesh::Create(config.layout()), {"one rank", "by formula", "avx2", 1 << 20, {}});
}

constexpr char kPipeline[] = "pipeline_ranks: 2 stages: 2 dualpipe {} data_ranks: 2 expert_ranks: 2 zero1: true";
constexpr char kData[] = "data_ranks: 4 expert_ranks: 2";
constexpr int64_t kKvElements = 32 * 12;        // of kv_b_proj
constexpr int64_t kDownElements = 4 * 32 * 16;  // of down_proj of half the experts

TEST(VerifyTest, LayoutsAreEqual) {
  for (const char* mode : {"FP32", "FP8"}) {
    for (const char* layout : {kPipeline, kData, ""}) {
      const config::RunConfig config = ConfigOf(layout, mode);
      const absl::StatusOr<VerifyReport> report = VerifyIt(config, Options());
      ASSERT_TRUE(report.ok()) << report.status();
      EXPECT_TRUE(report->equal()) << Verdict(config, *report);
      EXPECT_EQ(report->steps, 2);
      EXPECT_EQ(report->tensors, static_cast<int64_t>(report->list.size()));
      EXPECT_EQ(report->program_hash.size(), 64u);
      EXPECT_GT(report->arena_bytes, 0);
      EXPECT_THAT(Verdict(config, *report), StartsWith("equal: "));
    }
  }
}

// Ranks with devices of their own, whose memory nothing but their backend touches, against the CPU's memory.
TEST(VerifyTest, RanksWithDevicesAreEqual) {
  for (const char* mode : {"FP32", "FP8"}) {
    const absl::StatusOr<Golden> golden =
        RecordGolden(ConfigOf("", mode), FormulaData(ConfigOf("", mode)), RealClock(), Options());
    ASSERT_TRUE(golden.ok()) << golden.status();
    VerifyOptions options = Options();
    options.make_backend = [](std::optional<Rank>) { return std::make_unique<GatedDevice>(); };
    for (const char* layout : {kPipeline, kData, ""}) {
      const config::RunConfig config = ConfigOf(layout, mode);
      options.golden = &*golden;
      const absl::StatusOr<VerifyReport> report = VerifyIt(config, options);
      ASSERT_TRUE(report.ok()) << report.status();
      EXPECT_TRUE(report->equal()) << Verdict(config, *report);
      EXPECT_EQ(report->steps, 2);
      options.golden = nullptr;
      const absl::StatusOr<VerifyReport> beside = VerifyIt(config, options);
      ASSERT_TRUE(beside.ok()) << beside.status();
      EXPECT_TRUE(beside->equal()) << Verdict(config, *beside);
    }
  }
}

TEST(VerifyTest, ARankWithoutItsDeviceIsNamed) {
  VerifyOptions options = Options();
  options.make_backend = [](std::optional<Rank> rank) -> absl::StatusOr<std::unique_ptr<Backend>> {
    if (rank == Rank(2)) return absl::UnavailableError("device 2 cannot be used");
    return MakeCpuBackend({.threads = 1, .spin = 0});
  };
  const absl::StatusOr<VerifyReport> report = VerifyIt(ConfigOf(kData), options);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("rank 2: device 2 cannot be used"));
}

TEST(VerifyTest, ListsAllThatAStepLeaves) {
  const absl::StatusOr<VerifyReport> report = VerifyIt(ConfigOf(kData), Options());
  ASSERT_TRUE(report.ok()) << report.status();
  std::map<std::string, int> kinds;
  for (const StepTensor& tensor : report->list) ++kinds[tensor.kind];
  const int trained = kinds["gradient"];
  EXPECT_GT(trained, 20);
  for (const char* kind : {"weights", "exp_avg", "exp_avg_sq", "ema"}) EXPECT_EQ(kinds[kind], trained) << kind;
  EXPECT_EQ(kinds["expert_counts"], 2);  // one layer and one MTP module
  EXPECT_EQ(kinds["bias"], 2);
  for (const char* kind : {"loss", "loss_mtp", "loss_balance", "grad_norm", "position"}) EXPECT_EQ(kinds[kind], 1);
  // Everything is on one rank at least.
  int64_t bytes = 0;
  for (const StepTensor& tensor : report->list) bytes += tensor.elements() * SizeOf(tensor.dtype);
  EXPECT_GE(report->bytes, report->steps * bytes);
}

TEST(VerifyTest, NamesTheWeightTheStepAndTheRank) {
  const config::RunConfig config = ConfigOf(kData);
  // Six calls a step have so many elements: q_b_proj and kv_b_proj of layer 0, layer 1, MTP.
  const absl::StatusOr<VerifyReport> report = VerifyIt(config, Spoiled(Rank(3), {Where::kAdamW, kKvElements, 8}));
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->differences.size(), 2u);  // and its average
  const Difference& difference = report->differences[0];
  EXPECT_EQ(report->list[difference.tensor].full_name(), "weights.model.layers.0.self_attn.kv_b_proj.weight");
  EXPECT_EQ(difference.step, 2);
  EXPECT_EQ(difference.rank, Rank(3));
  EXPECT_EQ(difference.element, kKvElements - 1);
  EXPECT_THAT(Verdict(config, *report),
              StartsWith("different: step 2, weights.model.layers.0.self_attn.kv_b_proj.weight [31, 11] on rank 3 "
                         "(position 0, data 3, expert 1): "));
}

TEST(VerifyTest, NamesTheGradientOfTheExpertThatARankHolds) {
  const config::RunConfig config = ConfigOf("pipeline_ranks: 2 stages: 2 data_ranks: 2 expert_ranks: 2 zero1: true");
  const absl::StatusOr<VerifyReport> report =
      VerifyIt(config, Spoiled(Rank(3), {Where::kExpertWeightGradient, kDownElements, 1}));
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_FALSE(report->equal());
  const Difference& difference = report->differences[0];
  // Weight gradients are taken in the order of layers.
  EXPECT_EQ(report->list[difference.tensor].full_name(), "gradient.model.layers.1.mlp.experts.down_proj");
  EXPECT_EQ(difference.step, 1);
  EXPECT_EQ(difference.rank, Rank(3));
  EXPECT_EQ(difference.element, 2 * kDownElements - 1);
  // The norm is wrong, too, and so is the weight; nothing before the gradient is.
  std::set<std::string> kinds;
  for (const Difference& d : report->differences) kinds.insert(report->list[d.tensor].kind);
  EXPECT_TRUE(kinds.contains("grad_norm"));
  EXPECT_TRUE(kinds.contains("weights"));
  EXPECT_FALSE(kinds.contains("loss"));
  EXPECT_THAT(VerdictJson(*report, *Mesh::Create(config.layout()), {}), HasSubstr("\"equal\": false"));
}

TEST(VerifyTest, AFailureEndsAllRanks) {
  const config::RunConfig config = ConfigOf(kPipeline);
  const float infinity = std::numeric_limits<float>::infinity();
  const absl::StatusOr<VerifyReport> report =
      VerifyIt(config, Spoiled(Rank(3), {Where::kCrossEntropy, 12, 1, infinity}));
  ASSERT_FALSE(report.ok());
  EXPECT_TRUE(IsStopOnPurpose(report.status())) << report.status();
}

class GoldenRunTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<Golden> golden = RecordGolden(config_, FormulaData(config_), RealClock(), Options());
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
  }
  absl::StatusOr<VerifyReport> Against(VerifyOptions options, const config::RunConfig& config) {
    options.golden = &golden_;
    return VerifyIt(config, options);
  }
  const config::RunConfig config_ = ConfigOf(kData);
  Golden golden_;
};

TEST_F(GoldenRunTest, IsWhatOneRankGivesBesideALayout) {
  VerifyOptions options = Options();
  options.record = true;
  const absl::StatusOr<VerifyReport> report = VerifyIt(config_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_TRUE(report->recorded.has_value());
  EXPECT_EQ(ToText(*report->recorded), ToText(golden_));
}

TEST_F(GoldenRunTest, HoldsForEveryLayout) {
  for (const char* layout : {kData, kPipeline}) {
    const absl::StatusOr<VerifyReport> report = Against(Options(), ConfigOf(layout));
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->equal());
  }
}

TEST_F(GoldenRunTest, NamesTensorAndRank) {
  const absl::StatusOr<VerifyReport> expert =
      Against(Spoiled(Rank(1), {Where::kExpertWeightGradient, kDownElements, 1}), config_);
  ASSERT_TRUE(expert.ok()) << expert.status();
  ASSERT_FALSE(expert->equal());
  EXPECT_EQ(expert->list[expert->differences[0].tensor].full_name(), "gradient.model.layers.1.mlp.experts.down_proj");
  EXPECT_EQ(expert->differences[0].element, -1);
  EXPECT_THAT(Verdict(config_, *expert), HasSubstr("another SHA-256"));
  // A copy that is not what the rank says that speaks for it, whose digest is right.
  const absl::StatusOr<VerifyReport> copy = Against(Spoiled(Rank(2), {Where::kAdamW, kKvElements, 1}), config_);
  ASSERT_TRUE(copy.ok()) << copy.status();
  ASSERT_FALSE(copy->equal());
  EXPECT_EQ(copy->differences[0].rank, Rank(2));
  EXPECT_EQ(copy->differences[0].step, 1);
}

TEST_F(GoldenRunTest, MustFit) {
  const auto refused = [&](const VerifyOptions& options, const config::RunConfig& config, const std::string& why) {
    const absl::StatusOr<VerifyReport> report = Against(options, config);
    EXPECT_TRUE(absl::IsDataLoss(report.status())) << report.status();
    EXPECT_THAT(report.status().message(), HasSubstr(why));
  };
  config::RunConfig other = config_;
  other.mutable_train()->set_clip_norm(2);
  refused(Options(), other, "other numerics");
  VerifyOptions options = Options();
  options.steps = 3;
  refused(options, config_, "has 2 steps, 3 are to be compared");
  options = Options();
  options.instruction_set = "abacus";
  refused(options, config_, "this is abacus");
  golden_.data[0] ^= 1;
  refused(Options(), config_, "other data");
  golden_.data[0] ^= 1;
  golden_.steps[0].pop_back();
  refused(Options(), config_, "has nothing where position is");
}

}  // namespace
}  // namespace shoestring
