// Fill in the middle: nothing lost, characters whole, the rate kept, the decision a function of the document alone.
#include "data/fim.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "absl/strings/str_cat.h"
#include "data/utf8.h"

namespace shoestring {
namespace {

TEST(FimTest, PartsMakeTheDocumentAndCharactersStayWhole) {
  const std::string text = "a\xC3\xA9\xE6\x97\xA5\xF0\x9F\x98\x80z";
  int applied = 0;
  for (int64_t id = 0; id < 500; ++id) {
    const FimSplit split = SplitForFim(text, 7, id, 1.0);
    ASSERT_TRUE(split.applied);
    EXPECT_EQ(absl::StrCat(split.prefix, split.middle, split.suffix), text);
    for (const absl::string_view part : {split.prefix, split.middle, split.suffix}) {
      EXPECT_TRUE(CheckUtf8(part).ok()) << id;
    }
    applied += split.middle.empty() ? 0 : 1;
  }
  EXPECT_GT(applied, 300);
}

TEST(FimTest, EveryPairOfCutsOccursAsOftenAsItShould) {
  // Three characters: four places, 16 ordered draws; unordered pairs (i, i) have probability 1/16, (i, j) 2/16.
  std::array<std::array<int, 4>, 4> counts = {};
  constexpr int kDraws = 32000;
  for (int64_t id = 0; id < kDraws; ++id) {
    const FimSplit split = SplitForFim("abc", 1, id, 1.0);
    ++counts[split.prefix.size()][split.prefix.size() + split.middle.size()];
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = i; j < 4; ++j) {
      const double expected = kDraws * (i == j ? 1.0 : 2.0) / 16.0;
      EXPECT_NEAR(counts[i][j], expected, 0.1 * expected) << i << " " << j;
    }
  }
}

TEST(FimTest, RateIsKept) {
  int applied = 0;
  for (int64_t id = 0; id < 20000; ++id) applied += SplitForFim("text", 3, id, 0.1).applied ? 1 : 0;
  EXPECT_NEAR(applied, 2000, 130);  // three standard deviations
  EXPECT_FALSE(SplitForFim("text", 3, 1, 0.0).applied);
}

TEST(FimTest, EmptyTextIsFine) {
  const FimSplit split = SplitForFim("", 3, 1, 1.0);
  EXPECT_TRUE(split.applied);
  EXPECT_TRUE(split.prefix.empty() && split.middle.empty() && split.suffix.empty());
}

TEST(FimTest, SeedAndDocumentDecide) {
  const std::string text(1000, 'x');
  const FimSplit once = SplitForFim(text, 3, 5, 1.0), again = SplitForFim(text, 3, 5, 1.0);
  EXPECT_EQ(once.prefix.size(), again.prefix.size());
  EXPECT_EQ(once.middle.size(), again.middle.size());
  EXPECT_NE(once.prefix.size(), SplitForFim(text, 4, 5, 1.0).prefix.size());
  EXPECT_NE(once.prefix.size(), SplitForFim(text, 3, 6, 1.0).prefix.size());
}

}  // namespace
}  // namespace shoestring
