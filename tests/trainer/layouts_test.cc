// Any layout gives the bits of one rank: weights, moments, averages and biases after three steps, losses and
// validation.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/trainer/layout_bench.h"

namespace shoestring {
namespace {

struct LayoutCase {
  std::string name;
  std::string layout;
  std::string mode = "FP32";
  std::string train = "lanes: 4 expert_lanes: 1";
  std::string recompute = "";
};

config::RunConfig ConfigOf(const LayoutCase& c, const std::string& layout) {
  return TinyConfig(
      c.mode, absl::StrCat(R"(
    train { )",
                           c.train, R"( phase { sequence_length: 12 steps: 12 micro_batch: 1 batch { sequences: 16 }
            learning_rate { constant: 0.003 } } }
    model { layers: 5 }
    layout { )",
                           layout, " } ", c.recompute));
}

class LayoutsTest : public testing::TestWithParam<LayoutCase> {};

TEST_P(LayoutsTest, GiveTheBitsOfOneRank) {
  const absl::StatusOr<LayoutResult> one = TrainOnThreads(ConfigOf(GetParam(), ""), 3);
  ASSERT_TRUE(one.ok()) << one.status();
  const absl::StatusOr<LayoutResult> many = TrainOnThreads(ConfigOf(GetParam(), GetParam().layout), 3);
  ASSERT_TRUE(many.ok()) << many.status();
  EXPECT_EQ(many->losses, one->losses);
  EXPECT_EQ(many->grad_norm, one->grad_norm);
  EXPECT_EQ(many->validation, one->validation);
  EXPECT_EQ(many->tensors, one->tensors);
}

// A rank alone may hold several stages.
TEST(OneRankTest, HoldsTheStagesOfAnySchedule) {
  const absl::StatusOr<LayoutResult> one = TrainOnThreads(ConfigOf({}, ""), 3);
  ASSERT_TRUE(one.ok()) << one.status();
  for (const char* layout : {"stages: 2 zb_v {}", "stages: 2 dualpipe_v {}", "stages: 3 interleaved { chunks: 3 }"}) {
    const config::RunConfig config = ConfigOf({}, layout);
    const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
    const absl::StatusOr<std::unique_ptr<Trainer>> trainer =
        Trainer::Create(config, FormulaData(config), *backend, RealClock(), {});
    ASSERT_TRUE(trainer.ok()) << trainer.status();
    std::vector<double> losses;
    for (int i = 0; i < 3; ++i) {
      const absl::StatusOr<const StepResult*> step = (*trainer)->Step();
      ASSERT_TRUE(step.ok()) << step.status();
      losses.push_back((*step)->total_loss());
    }
    EXPECT_EQ(losses, one->losses) << layout;
  }
}

// FAST gives up the order of the config's lanes for the layout's own: one lane a rank and direction, groups of expert
// lanes as wide as the expert ranks. So it equals one rank that is told to sum so, and only nearly one that is not.
TEST(FastSumsTest, AreThoseOfTheLayout) {
  const LayoutCase fast{"", "data_ranks: 2 expert_ranks: 2", "BF16", "lanes: 8 expert_lanes: 8 reduction: FAST"};
  const LayoutCase same{"", "", "BF16", "lanes: 2 expert_lanes: 2 reduction: CANONICAL"};
  const LayoutCase canonical{"", "", "BF16", "lanes: 8 expert_lanes: 1 reduction: CANONICAL"};
  const absl::StatusOr<LayoutResult> result = TrainOnThreads(ConfigOf(fast, fast.layout), 3);
  ASSERT_TRUE(result.ok()) << result.status();
  const absl::StatusOr<LayoutResult> twin = TrainOnThreads(ConfigOf(same, ""), 3);
  ASSERT_TRUE(twin.ok()) << twin.status();
  EXPECT_EQ(result->tensors, twin->tensors);
  EXPECT_EQ(result->losses, twin->losses);
  const absl::StatusOr<LayoutResult> other = TrainOnThreads(ConfigOf(canonical, ""), 3);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_NE(result->tensors, other->tensors);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(result->losses[i], other->losses[i], 1e-3);
}

INSTANTIATE_TEST_SUITE_P(
    Spread, LayoutsTest,
    testing::Values(
        LayoutCase{"Data2", "data_ranks: 2"},                                      //
        LayoutCase{"Data4Zero1", "data_ranks: 4 zero1: true", "BF16"},             //
        LayoutCase{"Data3", "data_ranks: 3", "BF16", "lanes: 6 expert_lanes: 1"},  //
        LayoutCase{"Data2Expert2", "data_ranks: 2 expert_ranks: 2"},
        LayoutCase{"Data2Expert2Zero1Bf16", "data_ranks: 2 expert_ranks: 2 zero1: true", "BF16"},
        LayoutCase{"Data4Expert4TogetherFp8", "data_ranks: 4 expert_ranks: 4", "FP8", "lanes: 4 expert_lanes: 4"},
        LayoutCase{"Data4Expert2Together2", "data_ranks: 4 expert_ranks: 2 zero1: true", "FP8",
                   "lanes: 8 expert_lanes: 2"},
        LayoutCase{"Data2Expert2Together4", "data_ranks: 2 expert_ranks: 2", "BF16", "lanes: 8 expert_lanes: 4"},
        LayoutCase{"Data4Expert4TwoHop", "data_ranks: 4 expert_ranks: 4 ranks_per_node: 2 exchange { path: TWO_HOP }",
                   "BF16"},
        LayoutCase{"Pipeline2Data2Expert2DualPipe",
                   "pipeline_ranks: 2 stages: 2 dualpipe {} data_ranks: 2 expert_ranks: 2 zero1: true", "FP8",
                   "lanes: 4 expert_lanes: 2"},
        LayoutCase{"DualPipeV2Data2Expert2", "pipeline_ranks: 2 stages: 4 dualpipe_v {} data_ranks: 2 expert_ranks: 2",
                   "FP8"},
        LayoutCase{"DualPipe4Data2Expert2",
                   "pipeline_ranks: 4 stages: 4 dualpipe {} data_ranks: 2 expert_ranks: 2 zero1: true"},
        LayoutCase{"Pipeline2Data4Expert4Recompute",
                   "pipeline_ranks: 2 stages: 2 zb_h1 {} data_ranks: 4 expert_ranks: 4", "BF16",
                   "lanes: 4 expert_lanes: 1", "recompute { norms: true mla_up: true swiglu: true }"},
        LayoutCase{"Data2TogetherFp8", "data_ranks: 2", "FP8", "lanes: 4 expert_lanes: 2"},
        LayoutCase{"Pipeline2", "pipeline_ranks: 2 stages: 2"},
        LayoutCase{"Pipeline2Data2Zero1", "pipeline_ranks: 2 stages: 2 data_ranks: 2 zero1: true", "FP8"},
        LayoutCase{"DualPipe2", "pipeline_ranks: 2 stages: 2 dualpipe {}"},
        LayoutCase{"DualPipe4Data2Zero1", "pipeline_ranks: 4 stages: 4 dualpipe {} data_ranks: 2 zero1: true", "BF16"},
        LayoutCase{"DualPipeV2Data2", "pipeline_ranks: 2 stages: 4 dualpipe_v {} data_ranks: 2 zero1: true"},
        LayoutCase{"ZbV2", "pipeline_ranks: 2 stages: 4 zb_v {}"},
        LayoutCase{"ZbH14", "pipeline_ranks: 4 stages: 4 zb_h1 {}", "BF16"},
        LayoutCase{"Gpipe2", "pipeline_ranks: 2 stages: 2 gpipe {} layers_per_stage: 1 layers_per_stage: 4"},
        LayoutCase{"Interleaved2", "pipeline_ranks: 2 stages: 4 interleaved { chunks: 2 }", "BF16"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace shoestring
