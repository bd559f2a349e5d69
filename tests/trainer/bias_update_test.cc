// The sign rule of the routing bias, in integers.
#include "trainer/bias_update.h"

#include "absl/types/span.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

TEST(UpdateBiasTest, MovesTowardsTheMean) {
  const int64_t counts[] = {10, 20, 30, 20};
  float bias[] = {0.0f, 0.5f, -0.25f, 0.0f};
  UpdateBias(counts, 0.001, absl::MakeSpan(bias));
  EXPECT_EQ(bias[0], 0.001f);
  EXPECT_EQ(bias[1], 0.5f);  // exactly the mean: no change
  EXPECT_EQ(bias[2], -0.25f - 0.001f);
  EXPECT_EQ(bias[3], 0.0f);
}

// A mean that is no integer: in integers 3 * 3 < 10 and 3 * 4 > 10, whatever the division would round to.
TEST(UpdateBiasTest, ComparesWithoutDividing) {
  const int64_t counts[] = {3, 3, 4};
  float bias[] = {0, 0, 0};
  UpdateBias(counts, 1.0, absl::MakeSpan(bias));
  EXPECT_EQ(bias[0], 1.0f);
  EXPECT_EQ(bias[1], 1.0f);
  EXPECT_EQ(bias[2], -1.0f);
}

// Doubles could not tell these counts from their mean.
TEST(UpdateBiasTest, IsExactForHugeCounts) {
  const int64_t big = int64_t{1} << 58;
  const int64_t counts[] = {big, big + 1};
  float bias[] = {0, 0};
  UpdateBias(counts, 1.0, absl::MakeSpan(bias));
  EXPECT_EQ(bias[0], 1.0f);
  EXPECT_EQ(bias[1], -1.0f);
}

TEST(UpdateBiasTest, SpeedZeroChangesNothing) {
  const int64_t counts[] = {1, 5};
  float bias[] = {0.125f, -0.5f};
  UpdateBias(counts, 0.0, absl::MakeSpan(bias));
  EXPECT_EQ(bias[0], 0.125f);
  EXPECT_EQ(bias[1], -0.5f);
}

// Closed loop: experts whose attraction differs become equally loaded.
TEST(UpdateBiasTest, BalancesAClosedLoop) {
  float bias[] = {0, 0, 0, 0};
  const float attraction[] = {0.3f, 0.2f, 0.1f, 0.0f};
  int64_t counts[4];
  double last = 0;
  for (int step = 0; step < 2000; ++step) {
    for (int i = 0; i < 4; ++i) counts[i] = 1000 + static_cast<int64_t>(2000 * (attraction[i] + bias[i]));
    last = MaxOverMean(counts);
    UpdateBias(counts, 0.001, absl::MakeSpan(bias));
  }
  EXPECT_LT(last, 1.01);
}

TEST(MaxOverMeanTest, Values) {
  const int64_t even[] = {5, 5}, one[] = {0, 12, 0}, none[] = {0, 0};
  EXPECT_EQ(MaxOverMean(even), 1.0);
  EXPECT_EQ(MaxOverMean(one), 3.0);
  EXPECT_EQ(MaxOverMean(none), 0.0);
}

}  // namespace
}  // namespace shoestring
