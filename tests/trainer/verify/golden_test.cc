// The golden file: parse and print are inverses, and what is wrong with a line is said.
#include "trainer/verify/golden.h"

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using testing::HasSubstr;

Golden Example() {
  const std::string a(64, 'a'), b(64, '0');
  return {a, "avx512", b, {{{"loss", a}, {"gradient.w", b}}, {{"loss", b}, {"gradient.w", a}}}};
}

void ExpectRefused(const std::string& text, const std::string& message) {
  const absl::StatusOr<Golden> golden = ParseGolden(text);
  ASSERT_FALSE(golden.ok()) << text;
  EXPECT_TRUE(absl::IsDataLoss(golden.status()));
  EXPECT_THAT(golden.status().message(), HasSubstr(message));
}

TEST(GoldenTest, ParseAndPrintAreInverses) {
  const std::string text = ToText(Example());
  const absl::StatusOr<Golden> golden = ParseGolden(text);
  ASSERT_TRUE(golden.ok()) << golden.status();
  EXPECT_EQ(ToText(*golden), text);
  EXPECT_EQ(golden->steps.size(), 2u);
  EXPECT_EQ(golden->steps[1][1].name, "gradient.w");
  EXPECT_EQ(golden->instruction_set, "avx512");
}

TEST(GoldenTest, RefusesWhatIsWrong) {
  const std::string text = ToText(Example());
  ExpectRefused("", "line 1: not 'shoestring golden 1'");
  ExpectRefused(absl::StrReplaceAll(text, {{"numerics", "numeric"}}), "line 2: not 'numerics VALUE'");
  ExpectRefused(absl::StrReplaceAll(text, {{"numerics a", "numerics A"}}), "line 2: no SHA-256");
  ExpectRefused(absl::StrReplaceAll(text, {{" loss", ""}}), "line 5: not 'STEP SHA-256 TENSOR', nor 'end'");
  ExpectRefused(absl::StrReplaceAll(text, {{"\n2 ", "\n3 "}}), "line 7: step 3 after step 1");
  ExpectRefused(absl::StrReplaceAll(text, {{"\n1 ", "\n0 "}}), "line 5: step 0 after step 0");
  ExpectRefused(text.substr(0, text.size() - 4), "line 9: not 'STEP");
  ExpectRefused(text + "1", "the file goes on behind its end");
  ExpectRefused(text.substr(0, text.find("1 a")) + "end\n", "no step");
}

}  // namespace
}  // namespace shoestring
