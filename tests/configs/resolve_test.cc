// Tests of the settings in force in a phase.
#include "configs/resolve.h"

#include "gmock/gmock.h"
#include "tests/configs/testing.h"

namespace shoestring::config {
namespace {

using ::testing::ElementsAre;

TEST(ResolveTest, PhaseReplacesWhatItSays) {
  const RunConfig config =
      LoadRecipe("tiny_cpu", {"model.yarn={ factor: 2 }", "layout.layers_per_stage=[2, 2]", "layout.data_ranks=4",
                              "layout.dualpipe={}", "train.lanes=8",
                              "train.phase+={ layout { data_ranks: 2 "
                              "layers_per_stage: [1, 3] gpipe {} } lanes: 2 expert_lanes: 2 yarn { factor: 3 } }"})
          .config;
  const PhaseSettings first = ResolvePhase(config, 0);
  EXPECT_EQ(first.lanes, 8);
  EXPECT_EQ(first.expert_lanes, 1);
  EXPECT_EQ(first.yarn->factor(), 2);
  EXPECT_EQ(WorldSize(first.layout), 4);
  EXPECT_EQ(Directions(first.layout), 2);
  const PhaseSettings second = ResolvePhase(config, 1);
  EXPECT_EQ(second.lanes, 2);
  EXPECT_EQ(second.expert_lanes, 2);
  EXPECT_EQ(second.yarn->factor(), 3);
  EXPECT_EQ(WorldSize(second.layout), 2);
  EXPECT_EQ(Directions(second.layout), 1);
  EXPECT_THAT(second.layout.layers_per_stage(), ElementsAre(1, 3));
  EXPECT_EQ(config.train().phase(1).layout().layers_per_stage_size(), 2) << "the config itself is left alone";
}

TEST(ResolveTest, AModelHasTheContextOfThePhasesBehindIt) {
  const RunConfig v3 = LoadRecipe("deepseek_v3_671b").config;
  for (const auto& [phases, context_length] : {std::pair<int, int>{0, 4096}, {1, 4096}, {2, 4096}}) {
    EXPECT_FALSE(ModelAfter(v3, phases).model.has_yarn()) << phases;
    EXPECT_EQ(ModelAfter(v3, phases).context_length, context_length) << phases;
  }
  for (const int phases : {3, 4}) {
    EXPECT_EQ(ModelAfter(v3, phases).model.yarn().factor(), 40) << phases;
    EXPECT_EQ(ModelAfter(v3, phases).context_length, 163840) << phases;
  }
  RunConfig plain;
  for (const int length : {64, 256, 128, 512}) plain.mutable_train()->add_phase()->set_sequence_length(length);
  std::vector<int64_t> lengths;
  for (int phases = 0; phases <= 4; ++phases) lengths.push_back(ModelAfter(plain, phases).context_length);
  EXPECT_THAT(lengths, ElementsAre(64, 64, 256, 256, 512));
  EXPECT_EQ(ModelAfter({}, 0).context_length, 0);
  plain.mutable_model()->mutable_yarn()->set_factor(2);
  plain.mutable_model()->mutable_yarn()->set_original_length(100);
  EXPECT_EQ(ModelAfter(plain, 0).context_length, 200);
}

TEST(ResolveTest, LayersAreSpreadEvenly) {
  LayoutConfig layout;
  layout.set_stages(4);
  EXPECT_THAT(LayersPerStage(layout, 10), ElementsAre(3, 3, 2, 2));
  EXPECT_THAT(LayersPerStage(layout, 8), ElementsAre(2, 2, 2, 2));
  layout.add_layers_per_stage(7);
  EXPECT_THAT(LayersPerStage(layout, 7), ElementsAre(7));
}

TEST(ResolveTest, RampsInWholeUnits) {
  Phase phase;
  phase.set_micro_batch(2);
  BatchRamp& ramp = *phase.mutable_batch()->mutable_ramp();
  ramp.set_from_sequences(8);
  ramp.set_to_sequences(16);
  ramp.set_over_tokens(1000);
  const PhaseSettings settings{&phase, {}, 2, 1, nullptr};
  std::vector<int64_t> sizes;
  for (const int64_t tokens : {0, 499, 500, 999, 1000, 5000}) sizes.push_back(BatchSequences(settings, tokens));
  EXPECT_THAT(sizes, ElementsAre(8, 8, 12, 12, 16, 16));
  phase.mutable_batch()->set_sequences(24);
  EXPECT_EQ(BatchSequences(settings, 77), 24);
}

TEST(ResolveTest, RampDoesNotOverflowAtTheLargestCounts) {
  Phase phase;
  phase.set_micro_batch(1);
  BatchRamp& ramp = *phase.mutable_batch()->mutable_ramp();
  ramp.set_from_sequences(1);
  ramp.set_to_sequences(1'000'000'000);
  ramp.set_over_tokens(1'000'000'000'000'000'000);
  const PhaseSettings settings{&phase, {}, 1, 1, nullptr};
  EXPECT_EQ(BatchSequences(settings, 1'000'000'000'000'000'000), 1'000'000'000);
  EXPECT_EQ(BatchSequences(settings, 500'000'000'000'000'000), 500'000'000);
}

TEST(ResolveTest, PiecesHoldForStepsThatBeginBeforeTheirEnd) {
  const RunConfig config = LoadRecipe("deepseek_v3_671b").config;
  EXPECT_EQ(ValueAtTokens(config.train().bias_speed(), 0), 0.001);
  EXPECT_EQ(ValueAtTokens(config.train().bias_speed(), 14'299'999'999'999), 0.001);
  EXPECT_EQ(ValueAtTokens(config.train().bias_speed(), 14'300'000'000'000), 0);
  EXPECT_EQ(ValueAtTokens(config.train().mtp_weight(), 14'700'000'000'000), 0.1);
  EXPECT_EQ(ValueAtTokens({}, 5), 0);
}

TEST(ResolveTest, StagesFollowTheSchedule) {
  LayoutConfig layout;
  layout.set_pipeline_ranks(4);
  EXPECT_EQ(StagesOfSchedule(layout), 4);
  layout.mutable_interleaved()->set_chunks(3);
  EXPECT_EQ(StagesOfSchedule(layout), 12);
  layout.mutable_zb_v();
  EXPECT_EQ(StagesOfSchedule(layout), 8);
  layout.mutable_dualpipe_v();
  EXPECT_EQ(StagesOfSchedule(layout), 8);
  layout.mutable_dualpipe();
  EXPECT_EQ(StagesOfSchedule(layout), 4);
}

}  // namespace
}  // namespace shoestring::config
