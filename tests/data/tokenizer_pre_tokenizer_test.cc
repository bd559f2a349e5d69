// Tests the cutting of text into pre-tokens, and the translation of patterns between engines.
#include <string>
#include <utility>
#include <vector>

#include "data/pre_tokenizer.h"
#include "data/pre_tokenizer_pattern.h"
#include "data/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Split(const std::vector<std::string>& patterns, const std::string& text) {
  const absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Create(patterns);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  PreTokenizer::Scratch scratch;
  std::vector<std::string> pieces;
  const absl::Status status =
      pre_tokenizer->Split(text, scratch, [&](absl::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_TRUE(status.ok()) << status;
  return pieces;
}

TEST(PreTokenizerTest, DeepSeekV3ByHand) {
  const std::vector<std::string> patterns = DeepSeekV3Patterns();
  EXPECT_THAT(Split(patterns, "Hello, world!\n\nIt's 12345."),
              ElementsAre("Hello", ",", " world", "!\n\n", "It", "'s", " ", "123", "45", "."));
  EXPECT_THAT(Split(patterns, "漢字とかな ABC"), ElementsAre("漢字とかな", " ABC"));
  EXPECT_THAT(Split(patterns, "  a\n  b  "), ElementsAre(" ", " a", "\n", " ", " b", "  "));
  EXPECT_THAT(Split(patterns, "x = (y+z);\r\n"), ElementsAre("x", " =", " (", "y", "+z", ");\r\n"));
  EXPECT_THAT(Split(patterns, "नमस्ते"), ElementsAre("नमस्ते"));  // marks stay with their letters
  EXPECT_TRUE(Split(patterns, "").empty());
}

TEST(PreTokenizerTest, Gpt2ByHand) {
  EXPECT_THAT(Split({Gpt2Pattern()}, "I'm here  now 42!"), ElementsAre("I", "'m", " here", " ", " now", " 42", "!"));
}

TEST(PreTokenizerTest, PiecesDoNotSeeTheirNeighbours) {
  // Cut before the digit, the spaces end their piece, so that the look-ahead holds for all of them.
  EXPECT_THAT(Split({"[0-9]", R"(\s+(?!\S)|\s+)"}, "a   1"), ElementsAre("a", "   ", "1"));
  EXPECT_THAT(Split({R"(\s+(?!\S)|\s+)"}, "a   1"), ElementsAre("a", "  ", " ", "1"));
}

TEST(PreTokenizerTest, NoPatternLeavesTheTextWhole) { EXPECT_THAT(Split({}, "a b\nc"), ElementsAre("a b\nc")); }

TEST(PreTokenizerTest, WhiteSpaceIsTheUnicodeProperty) {
  std::string spaces;
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    const bool expected = (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
                          (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
                          c == 0x3000;
    if (expected) spaces += text;
  }
  EXPECT_THAT(Split({R"(\s+)"}, "a" + spaces + "b"), ElementsAre("a", spaces, "b"));
  EXPECT_THAT(Split({R"([\s]+)"}, "a" + spaces + "b"), ElementsAre("a", spaces, "b"));
  EXPECT_THAT(Split({R"(\S+)"}, "a" + spaces + "b"), ElementsAre("a", spaces, "b"));
  const std::string separator = "\u180e";  // no longer white space, but PCRE2's own \s takes it
  EXPECT_THAT(Split({R"(\s)"}, "a" + separator + "b"), ElementsAre("a" + separator + "b"));
  EXPECT_THAT(Split({R"(\S+)"}, " " + separator + " "), ElementsAre(" ", separator, " "));
}

TEST(PreTokenizerTest, AnExplodingPatternIsAnErrorAndNoHang) {
  const absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Create({"(?:a|aa|a?b)+[cd]"});
  ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  PreTokenizer::Scratch scratch;
  const absl::Status status = pre_tokenizer->Split(std::string(5000, 'a'), scratch, [](absl::string_view) {});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;  // the disk has nothing to do with it
  EXPECT_THAT(status.message(), HasSubstr("exhausted its stack or steps on this text; simplify the pattern"));
}

TEST(PreTokenizerTest, RefusesPatterns) {
  EXPECT_THAT(PreTokenizer::Create({"a", "b*"}).status().message(),
              HasSubstr("Split 1: pattern 'b*' can match the empty"));
  EXPECT_THAT(PreTokenizer::Create({"(a"}).status().message(), HasSubstr("Split 0: pattern does not compile: missing"));
  EXPECT_THAT(PreTokenizer::Create(std::vector<std::string>(17, "a")).status().message(),
              HasSubstr("17 Splits; at most 16"));
}

TEST(TranslatePatternTest, KeepsWhatMeansTheSame) {
  for (const char* pattern : {R"(\p{N}{1,3})", R"([^\r\n\p{L}]?[\p{L}\p{M}]+)", R"((?i:'s|'t)|a??b*?c++)",
                              R"((?<=a)b(?<!c)(?=d)(?!e)(?>f)(g))", R"(a{2}b{2,}.[{|}\[\]^$\\-])", "[一-龥]+"}) {
    EXPECT_EQ(*TranslatePattern(pattern), pattern);
  }
  EXPECT_EQ(*TranslatePattern(R"(\s[^\S\u3040])"), R"(\p{White_Space}[^\P{White_Space}\x{3040}])");
  EXPECT_EQ(*TranslatePattern(R"(\x{1F600}\\s)"), R"(\x{1F600}\\s)");  // an escaped backslash and a plain s
}

TEST(TranslatePatternTest, RefusesWhatDiffers) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"(ab\w)", "pattern byte 2: the escape '\\w'"},
      {R"(\bfoo)", "the escape '\\b'"},
      {R"((a)\1)", "the escape '\\1'"},
      {R"([\h])", "the escape '\\h'"},
      {"a\\", "a backslash at the end"},
      {"\\é", "beyond ASCII"},
      {R"(\pL)", "a property must be written"},
      {R"(\p{Han})", "the property 'Han' is not a general category"},
      {R"(\p{^L})", "the property '^L'"},
      {R"(\p{L)", "a property must be written"},
      {R"(\x41)", "a code point must be written"},
      {R"(\u30)", "a code point must be written"},
      {R"(\x{zz})", "'zz' is not a code point"},
      {"[a", "a class '[' without its ']'"},
      {"[]a]", "an empty class"},
      {"[^]a]", "an empty class"},
      {"[a[b]]", "pattern byte 2: '[' within a class"},
      {"[a&&b]", "'&&' within a class"},
      {"^a", "the anchor '^'"},
      {"a$", "pattern byte 1: the anchor '$'"},
      {"(?i)a", "this kind of group"},
      {"(?P<n>a)", "this kind of group"},
      {"(*UTF)a", "a verb"},
      {"a{,3}", "'{' that is no quantifier"},
      {"a{x}", "'{' that is no quantifier"},
      {"a{2", "'{' that is no quantifier"},
      {"a{2,3,4}", "'{' that is no quantifier"},
      {"a{2}+", "a quantifier upon a quantifier"},
      {"a{2}?", "a quantifier upon a quantifier"},
      {"a+++", "a quantifier upon a quantifier"},
      {"\xFF", "pattern: invalid UTF-8 at byte 0"},
  };
  for (const auto& [pattern, message] : cases) {
    const absl::StatusOr<std::string> translated = TranslatePattern(pattern);
    EXPECT_EQ(translated.status().code(), absl::StatusCode::kInvalidArgument) << pattern;
    EXPECT_THAT(translated.status().message(), HasSubstr(message)) << pattern;
  }
}

}  // namespace
}  // namespace shoestring
