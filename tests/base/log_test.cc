// Tests of the log line: format, escapes, and that it goes to standard error.
#include "base/log.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

constexpr int64_t kNoon = 1'769'860'800'000'000'000;  // 2026-01-31T12:00:00Z

TEST(LogTest, LineHasTimeSeverityAndRank) {
  EXPECT_EQ(FormatLogLine(kNoon, Severity::kInfo, 3, "message"), "2026-01-31T12:00:00Z I rank 3: message\n");
  EXPECT_EQ(FormatLogLine(kNoon + 999'999'999, Severity::kWarning, 0, ""), "2026-01-31T12:00:00Z W rank 0: \n");
  EXPECT_EQ(FormatLogLine(kNoon, Severity::kError, -1, "x"), "2026-01-31T12:00:00Z E x\n");
}

TEST(LogTest, ControlCharactersAreEscapedAndUtf8Passes) {
  EXPECT_EQ(FormatLogLine(kNoon, Severity::kInfo, -1, absl::string_view("a\nb\tc\x1b[0m\0d\x7f é", 15)),
            "2026-01-31T12:00:00Z I a\\nb\\tc\\x1b[0m\\x00d\\x7f é\n");
}

TEST(LogTest, GoesToStandardError) {
  testing::internal::CaptureStderr();
  Log(Severity::kWarning, 12, "two\nlines");
  LogError("bare");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::MatchesRegex("[0-9T:-]*Z W rank 12: two\\\\nlines\n[0-9T:-]*Z E bare\n"));
}

}  // namespace
}  // namespace shoestring
