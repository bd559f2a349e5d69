// Tests of the check and status macros.
#include "base/check.h"

#include "base/status_macros.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

TEST(CheckDeathTest, PrintsPlaceExpressionAndBothOperands) {
  const int ranks = 3;
  EXPECT_DEATH(CHECK_EQ(ranks, 4), "check_test.cc:[0-9]+: check failed: ranks == 4 \\(3 vs. 4\\)");
  EXPECT_DEATH(CHECK_LT(ranks, 2), "ranks < 2 \\(3 vs. 2\\)");
  EXPECT_DEATH(CHECK(ranks > 5), "check failed: ranks > 5");
}

TEST(CheckTest, OperandsAreEvaluatedOnce) {
  int calls = 0;
  CHECK_GE(++calls, 1);
  CHECK_NE(++calls, 1);
  CHECK(++calls == 3);
  EXPECT_EQ(calls, 3);
}

absl::StatusOr<int> Half(int value) {
  if (value % 2 != 0) return absl::InvalidArgumentError("odd");
  return value / 2;
}

absl::StatusOr<int> Quarter(int value) {
  ASSIGN_OR_RETURN(const int half, Half(value));
  ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

absl::Status CheckEven(int value) {
  RETURN_IF_ERROR(WithContext(Half(value).status(), "value"));
  return absl::OkStatus();
}

TEST(StatusMacrosTest, ReturnEarlyOnFailure) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).status(), absl::InvalidArgumentError("odd"));
  EXPECT_TRUE(CheckEven(2).ok());
  EXPECT_EQ(CheckEven(3), absl::InvalidArgumentError("value: odd"));
}

}  // namespace
}  // namespace shoestring
