// Tests of the clocks: the real one goes forward, the manual one only when told.
#include "base/clock.h"

#include "gtest/gtest.h"

namespace shoestring {
namespace {

TEST(RealClockTest, SleepsAtLeastAsLongAsAsked) {
  Clock& clock = RealClock();
  const int64_t start = clock.MonotonicNanos();
  clock.SleepNanos(2'000'000);
  EXPECT_GE(clock.MonotonicNanos() - start, 2'000'000);
  clock.SleepNanos(-1);  // returns at once
}

TEST(RealClockTest, WallTimeIsOfThisCentury) {
  EXPECT_GT(RealClock().WallNanos(), 1'700'000'000'000'000'000);  // November 2023
  EXPECT_LT(RealClock().WallNanos(), 4'102'444'800'000'000'000);  // 2100
}

TEST(ManualClockTest, MovesOnlyWhenTold) {
  ManualClock clock(5);
  EXPECT_EQ(clock.MonotonicNanos(), 5);
  clock.SleepNanos(10);
  clock.Advance(1'000'000'000);
  EXPECT_EQ(clock.WallNanos(), 1'000'000'015);
  EXPECT_DOUBLE_EQ(clock.MonotonicSeconds(), 1.000000015);
}

}  // namespace
}  // namespace shoestring
