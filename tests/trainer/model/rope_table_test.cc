// Rotary frequencies and softmax scales against figures of the released models.
#include "trainer/model/rope_table.h"

#include <cmath>

#include "gmock/gmock.h"

namespace shoestring {
namespace {

RopeSettings DeepSeekV3Yarn() { return {10000, 40, 4096, 32, 1, 1, 1}; }

TEST(RopeTable, PlainFrequenciesArePowersOfTheta) {
  RopeSettings plain;
  const std::vector<double> f = RopeFrequencies(plain, 8);
  ASSERT_EQ(f.size(), 4u);
  EXPECT_DOUBLE_EQ(f[0], 1);
  EXPECT_NEAR(f[1], 0.1, 1e-15);
  EXPECT_NEAR(f[3], 0.001, 1e-15);
  EXPECT_EQ(RopeAmplitude(plain), 1);
}

// The ramp of V3 lies between pairs 10 and 23 of 32: up to 10 as it was, from 23 on divided by 40.
TEST(RopeTable, YarnKeepsFastAndSlowsSlowFrequencies) {
  const std::vector<double> plain = RopeFrequencies({}, 64);
  const std::vector<double> yarn = RopeFrequencies(DeepSeekV3Yarn(), 64);
  for (int j = 0; j <= 10; ++j) EXPECT_DOUBLE_EQ(yarn[j], plain[j]) << j;
  for (int j = 11; j < 23; ++j) {
    const double ramp = (j - 10) / 13.0;
    EXPECT_NEAR(yarn[j] / plain[j], ramp / 40 + (1 - ramp), 1e-12) << j;
  }
  for (int j = 23; j < 32; ++j) EXPECT_NEAR(yarn[j] / plain[j], 1.0 / 40, 1e-15) << j;
  EXPECT_EQ(RopeAmplitude(DeepSeekV3Yarn()), 1);
}

// As the released code has it: bounds that meet make a step; bounds that cross, as those of an original length of less
// than a rotation do, change nothing.
TEST(RopeTable, BoundsThatMeetOrCross) {
  const std::vector<double> plain = RopeFrequencies({}, 64);
  RopeSettings yarn = DeepSeekV3Yarn();
  yarn.original_length = 6;
  const std::vector<double> met = RopeFrequencies(yarn, 64);
  EXPECT_DOUBLE_EQ(met[0], plain[0]);
  for (int j = 1; j < 32; ++j) EXPECT_DOUBLE_EQ(met[j], plain[j] / 40) << j;
  yarn.original_length = 4;
  for (int j = 0; j < 32; ++j) EXPECT_DOUBLE_EQ(RopeFrequencies(yarn, 64)[j], plain[j]) << j;
}

TEST(RopeTable, AmplitudeIsTheRatioOfTemperatures) {
  RopeSettings yarn = DeepSeekV3Yarn();
  yarn.mscale_all_dim = 0;
  EXPECT_NEAR(RopeAmplitude(yarn), 1.36889, 1e-5);
}

TEST(RopeTable, SoftmaxScaleTakesTheSquareOfTheTemperature) {
  ModelShape shape;
  shape.nope = 128;
  shape.rope = 64;
  EXPECT_DOUBLE_EQ(SoftmaxScale(shape), 1 / std::sqrt(192.0));
  shape.rope_settings = DeepSeekV3Yarn();
  EXPECT_NEAR(SoftmaxScale(shape) * std::sqrt(192.0), 1.87385, 1e-5);
  shape.rope_settings.mscale_all_dim = 0.707;  // V2-Lite
  EXPECT_NEAR(SoftmaxScale(shape) * std::sqrt(192.0), 1.58963, 2e-4);
}

}  // namespace
}  // namespace shoestring
