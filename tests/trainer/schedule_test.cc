// Schedules: the numbers of DeepSeek-V3's pre-training, segments, ramps, phases.
#include "trainer/schedule.h"

#include <cmath>

#include "base/check.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

config::RunConfig Parse(const std::string& text) {
  config::RunConfig config;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &config));
  return config;
}

// V3 report, section 4.2: warm-up over 2000 steps, 2.2e-4 to 10T tokens, cosine to 2.2e-5 over 4.3T, 333B more at that,
// the rest at 7.3e-6; batch from 3072 to 15360 over 469B tokens; then the two extensions of section 4.3.
config::RunConfig DeepSeekV3() {
  return Parse(R"(
    train {
      bias_speed { value: 0.001 until_tokens: 14300000000000 } bias_speed { value: 0 }
      mtp_weight { value: 0.3 until_tokens: 10000000000000 } mtp_weight { value: 0.1 }
      balance_alpha: 0.0001 lanes: 256 expert_lanes: 64
      phase {
        sequence_length: 4096 tokens: 14800000000000 micro_batch: 1
        batch { ramp { from_sequences: 3072 to_sequences: 15360 over_tokens: 469000000000 } }
        learning_rate { until_step: 2000 linear { from: 0 to: 2.2e-4 } }
        learning_rate { until_tokens: 10000000000000 constant: 2.2e-4 }
        learning_rate { until_tokens: 14300000000000 cosine { from: 2.2e-4 to: 2.2e-5 } }
        learning_rate { until_tokens: 14633000000000 constant: 2.2e-5 }
        learning_rate { constant: 7.3e-6 }
      }
      phase {
        sequence_length: 32768 steps: 1000 micro_batch: 1 lanes: 1920 batch { sequences: 1920 }
        learning_rate { constant: 7.3e-6 }
      }
    })");
}

// The position of the first step of phase 0 that begins at or after so many tokens.
RunPosition AtTokens(const config::RunConfig& config, int64_t tokens) {
  RunPosition position = FindInPhase(config, 0, -1, tokens);
  position.step = position.phase_step;
  position.tokens = position.phase_tokens;
  return position;
}

TEST(ScheduleTest, WarmUpOfDeepSeekV3) {
  const Schedule schedule(DeepSeekV3());
  RunPosition position;
  StepPlan plan = schedule.PlanStep(position);
  EXPECT_EQ(plan.sequences, 3072);
  EXPECT_EQ(plan.tokens, 3072 * 4096);
  EXPECT_EQ(plan.waves, 12);
  EXPECT_DOUBLE_EQ(plan.learning_rate, 2.2e-4 / 2000);
  for (int i = 0; i < 2000; ++i) {
    plan = schedule.PlanStep(position);
    position = schedule.Advance(position, plan);
  }
  EXPECT_EQ(plan.learning_rate, 2.2e-4);  // the last step of the warm-up has the peak
  EXPECT_EQ(schedule.PlanStep(position).learning_rate, 2.2e-4);
  EXPECT_GT(position.tokens, 25'000'000'000);
  EXPECT_EQ(plan.bias_speed, 0.001);
  EXPECT_EQ(plan.mtp_weight, 0.3);
}

TEST(ScheduleTest, MilestonesOfDeepSeekV3) {
  const config::RunConfig config = DeepSeekV3();
  const Schedule schedule(config);
  const int64_t tera = 1'000'000'000'000;
  EXPECT_EQ(schedule.PlanStep(AtTokens(config, 469'000'000'000)).sequences, 15360);
  EXPECT_LT(schedule.PlanStep(AtTokens(config, 460'000'000'000)).sequences, 15360);

  RunPosition position = AtTokens(config, 10 * tera);
  position.phase_step -= 1;  // the last step that begins before 10T
  position.phase_tokens -= 15360 * 4096;
  position.tokens = position.phase_tokens;
  EXPECT_EQ(schedule.PlanStep(position).learning_rate, 2.2e-4);
  EXPECT_EQ(schedule.PlanStep(position).mtp_weight, 0.3);
  EXPECT_EQ(schedule.PlanStep(AtTokens(config, 10 * tera)).mtp_weight, 0.1);
  EXPECT_NEAR(schedule.PlanStep(AtTokens(config, 10 * tera)).learning_rate, 2.2e-4, 1e-9);

  const StepPlan middle = schedule.PlanStep(AtTokens(config, 12'150'000'000'000));
  EXPECT_NEAR(middle.learning_rate, (2.2e-4 + 2.2e-5) / 2, 1e-8);  // half of the cosine
  const StepPlan late = schedule.PlanStep(AtTokens(config, 14'300'000'000'000));
  EXPECT_EQ(late.learning_rate, 2.2e-5);
  EXPECT_EQ(late.bias_speed, 0.0);
  EXPECT_EQ(schedule.PlanStep(AtTokens(config, 14'299'000'000'000)).bias_speed, 0.001);
  EXPECT_EQ(schedule.PlanStep(AtTokens(config, 14'633'000'000'000)).learning_rate, 7.3e-6);
}

// The published pieces leave about 240 thousand steps (recipe: 227,785 at full batch, some 15 thousand in the ramp).
TEST(ScheduleTest, TotalStepsAgreeWithWalking) {
  const config::RunConfig config = DeepSeekV3();
  const Schedule schedule(config);
  RunPosition position;
  int64_t previous = 0;
  while (!schedule.Done(position)) {
    const StepPlan plan = schedule.PlanStep(position);
    if (position.phase == 0) {
      ASSERT_GE(plan.sequences, previous);
      previous = plan.sequences;
    }
    ASSERT_EQ(plan.sequences % (plan.lanes * plan.micro_batch), 0);
    position = schedule.Advance(position, plan);
  }
  EXPECT_EQ(position.step, schedule.TotalSteps());
  EXPECT_GT(position.step, 240'000);
  EXPECT_LT(position.step, 245'000);
  EXPECT_EQ(schedule.LargestStep(0).sequences, 15360);
  EXPECT_EQ(schedule.LargestStep(1).tokens, 1920 * 32768);
}

TEST(ScheduleTest, PhasesEndWithAWholeStepAndRestartTheirCounts) {
  const Schedule schedule(Parse(R"(train { lanes: 2 expert_lanes: 1
    phase { sequence_length: 10 tokens: 75 micro_batch: 1 batch { sequences: 4 } learning_rate { constant: 1 } }
    phase { sequence_length: 20 steps: 2 micro_batch: 2 lanes: 1 batch { sequences: 2 }
            learning_rate { until_step: 1 constant: 0.5 } learning_rate { factor: 0.1 } } })"));
  RunPosition position;
  position = schedule.Advance(position, schedule.PlanStep(position));
  EXPECT_EQ(position, (RunPosition{1, 40, 0, 1, 40, 4}));
  EXPECT_EQ(schedule.PlanStep(position).first_sample, 4);
  position = schedule.Advance(position, schedule.PlanStep(position));
  EXPECT_EQ(position, (RunPosition{2, 80, 1, 0, 0, 0}));
  StepPlan plan = schedule.PlanStep(position);
  EXPECT_EQ(plan.lanes, 1);
  EXPECT_EQ(plan.waves, 1);
  EXPECT_EQ(plan.tokens, 40);
  EXPECT_EQ(plan.learning_rate, 0.5);
  position = schedule.Advance(position, plan);
  EXPECT_EQ(schedule.PlanStep(position).learning_rate, 0.05);
  position = schedule.Advance(position, schedule.PlanStep(position));
  EXPECT_TRUE(schedule.Done(position));
  EXPECT_EQ(position.step, schedule.TotalSteps());
}

// A segment that ends in tokens after one that ended in steps starts where its first step does.
TEST(ScheduleTest, SegmentsMayMixUnits) {
  const Schedule schedule(Parse(R"(train { lanes: 1 expert_lanes: 1
    phase { sequence_length: 10 steps: 8 micro_batch: 1 batch { sequences: 1 }
            learning_rate { until_step: 2 linear { from: 0 to: 1 } }
            learning_rate { until_tokens: 60 linear { from: 1 to: 0 } }
            learning_rate { until_step: 8 linear { from: 5 to: 9 } } } })"));
  const double expected[] = {0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 7.0, 9.0};
  RunPosition position;
  for (double value : expected) {
    const StepPlan plan = schedule.PlanStep(position);
    EXPECT_DOUBLE_EQ(plan.learning_rate, value) << "step " << position.step;
    position = schedule.Advance(position, plan);
  }
  EXPECT_TRUE(schedule.Done(position));
}

TEST(ScheduleTest, FactorsMultiplyTheEndOfTheSegmentBefore) {
  const Schedule schedule(Parse(R"(train { lanes: 1 expert_lanes: 1
    phase { sequence_length: 10 steps: 4 micro_batch: 1 batch { sequences: 1 }
            learning_rate { until_step: 2 cosine { from: 4 to: 2 } }
            learning_rate { until_step: 3 factor: 0.5 } learning_rate { factor: 0.5 } } })"));
  RunPosition position;
  for (double value : {3.0, 2.0, 1.0, 0.5}) {
    const StepPlan plan = schedule.PlanStep(position);
    EXPECT_DOUBLE_EQ(plan.learning_rate, value);
    position = schedule.Advance(position, plan);
  }
}

TEST(EmaDecayTest, HalvesOverItsHalfLifeAtAnyBatch) {
  config::EmaConfig ema;
  ema.set_half_life_tokens(1000);
  EXPECT_DOUBLE_EQ(EmaDecay(ema, 1000), 0.5);
  EXPECT_DOUBLE_EQ(std::pow(EmaDecay(ema, 250), 4), 0.5);
  ema.set_decay(0.9);
  EXPECT_EQ(EmaDecay(ema, 7), 0.9);
}

}  // namespace
}  // namespace shoestring
