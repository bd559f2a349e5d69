// Tests encoding and decoding: by hand, round trips over all of Unicode, added tokens, the cache, threads, token
// splitting.
#include "data/tokenizer.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/bpe_train.h"
#include "data/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/data/tokenizer_fixture.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

// Ids: "he" 262, "ll" 263, "hell" 264, "hello" 265, " w" 266, "\n\n" 267, "!\n" 268, "!\n\n" 269, "\r\n" 270, ")." 271,
// ").\r\n" 272.
Tokenizer SmallTokenizer() {
  return MakeTokenizer(SmallSpec({{"h", "e"},
                                  {"l", "l"},
                                  {"he", "ll"},
                                  {"hell", "o"},
                                  {" ", "w"},
                                  {"\n", "\n"},
                                  {"!", "\n"},
                                  {"!", "\n\n"},
                                  {"\r", "\n"},
                                  {")", "."},
                                  {").", "\r\n"}}));
}

int32_t ByteId(const Tokenizer& tokenizer, char byte) { return (*tokenizer.Encode(std::string(1, byte)))[0]; }

// Characters from everywhere, letters and spaces more often.
std::string RandomText(const Rng& rng, int characters) {
  std::string text;
  for (int i = 0; i < characters; ++i) {
    const uint64_t kind = rng.Below(2 * i, 10);
    const uint64_t pick = rng.Bits64(2 * i + 1);
    if (kind < 4) {
      text.push_back("helo w!\n)."[pick % 10]);
    } else if (kind < 6) {
      text.push_back(static_cast<char>(pick % 128));
    } else {
      const uint64_t limit = kind < 8 ? 0x3000 : 0x110000 - 0x800;
      char32_t c = static_cast<char32_t>(pick % limit);
      if (c >= 0xD800) c += 0x800;
      AppendUtf8(c, &text);
    }
  }
  return text;
}

TEST(TokenizerTest, ByHand) {
  const Tokenizer tokenizer = SmallTokenizer();
  EXPECT_EQ(tokenizer.vocab_size(), 273);
  EXPECT_THAT(*tokenizer.Encode("hello world"), ElementsAre(265, 266, ByteId(tokenizer, 'o'), ByteId(tokenizer, 'r'),
                                                            ByteId(tokenizer, 'l'), ByteId(tokenizer, 'd')));
  EXPECT_THAT(*tokenizer.Encode("!\n\n"), ElementsAre(269));
  EXPECT_TRUE(tokenizer.Encode("")->empty());
  EXPECT_EQ(tokenizer.TokenBytes(265), "hello");
  EXPECT_EQ(*tokenizer.Decode({265, 1, 266}), "hello<｜end▁of▁sentence｜> w");
}

TEST(TokenizerTest, EveryScalarValueSurvives) {
  const Tokenizer tokenizer = SmallTokenizer();
  for (char32_t begin = 0; begin <= 0x10FFFF; begin += 0x100) {
    if (begin >= 0xD800 && begin < 0xE000) continue;
    std::string text;
    for (char32_t c = begin; c < begin + 0x100; ++c) {
      AppendUtf8(c, &text);
      if (c % 3 == 0) text += "h ";
    }
    const absl::StatusOr<Ids> ids = tokenizer.Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    ASSERT_EQ(*tokenizer.Decode(*ids), text) << "from code point " << static_cast<uint32_t>(begin);
  }
}

TEST(TokenizerTest, RandomTextsSurvive) {
  const Tokenizer tokenizer = SmallTokenizer();
  for (uint64_t i = 0; i < 500; ++i) {
    const std::string text = RandomText(Rng(1, RngPurpose::kTest, i), 1 + static_cast<int>(i));
    const absl::StatusOr<Ids> ids = tokenizer.Encode(text, {.allow_special = i % 2 == 0});
    ASSERT_TRUE(ids.ok()) << ids.status();
    ASSERT_EQ(*tokenizer.Decode(*ids), text);
  }
}

TEST(TokenizerTest, MalformedTextIsAnErrorWithItsOffset) {
  const Tokenizer tokenizer = SmallTokenizer();
  const absl::Status status = tokenizer.Encode("hello \xE2\x82").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "invalid UTF-8 at byte 6 (0xe2)");
  const Rng rng(2, RngPurpose::kTest, 0);
  int refused = 0;
  for (uint64_t i = 0; i < 3000; ++i) {  // bytes at random: never a crash, and what is accepted comes back
    std::string bytes;
    for (uint64_t k = 0; k < 1 + i % 9; ++k) bytes.push_back(static_cast<char>(rng.Bits64(16 * i + k)));
    const absl::StatusOr<Ids> ids = tokenizer.Encode(bytes);
    if (!ids.ok()) {
      ++refused;
      continue;
    }
    ASSERT_EQ(*tokenizer.Decode(*ids), bytes);
  }
  EXPECT_GT(refused, 1000);
  EXPECT_LT(refused, 3000);
}

TEST(TokenizerTest, DecodeRefusesForeignIds) {
  const Tokenizer tokenizer = SmallTokenizer();
  EXPECT_EQ(tokenizer.Decode({265, 273}).status().message(), "token 1: the id 273 is not in a vocabulary of 273");
  EXPECT_EQ(tokenizer.Decode({-1}).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(TokenizerTest, SpecialTokensOnlyWhereAllowed) {
  const Tokenizer tokenizer = SmallTokenizer();
  const SpecialIds& ids = tokenizer.special_ids();
  EXPECT_THAT((Ids{ids.bos, ids.eos, ids.pad, ids.fim_hole, ids.fim_begin, ids.fim_end}),
              ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_TRUE(tokenizer.IsSpecial(1));
  EXPECT_FALSE(tokenizer.IsSpecial(6));
  const std::string text = "hello<｜end▁of▁sentence｜>hello";
  EXPECT_THAT(*tokenizer.Encode(text, {.allow_special = true}), ElementsAre(265, 1, 265));
  const Ids plain = *tokenizer.Encode(text);
  for (const int32_t id : plain) EXPECT_FALSE(tokenizer.IsSpecial(id));
  EXPECT_EQ(*tokenizer.Decode(plain), text);
  EXPECT_EQ(tokenizer.AddedTokenId("<｜fim▁hole｜>"), 3);
  EXPECT_EQ(tokenizer.AddedTokenId("hello"), std::nullopt);
}

TEST(TokenizerTest, AddedTokensLeftmostLongestAndRawBeforeNormalized) {
  TokenizerSpec spec = SmallSpec({});
  const int32_t first = static_cast<int32_t>(spec.tokens.size());
  const auto add = [&](const char* content, bool normalized) {
    spec.tokens.push_back({.bytes = content, .added = true, .normalized = normalized, .in_model = false});
  };
  add("<a>", false);     // first
  add("<a><b>", false);  // first + 1
  add("b>h", true);      // first + 2
  add("<", true);        // first + 3
  add("xx<a>xx", true);  // first + 4: never found, since "<a>" is cut out before
  const Tokenizer tokenizer = MakeTokenizer(std::move(spec));
  EXPECT_THAT(*tokenizer.Encode("<a><b>"), ElementsAre(first + 1));
  EXPECT_THAT(*tokenizer.Encode("<a><b"), ElementsAre(first, first + 3, ByteId(tokenizer, 'b')));
  EXPECT_THAT(*tokenizer.Encode("<b>h"), ElementsAre(first + 3, first + 2));
  const int32_t x = ByteId(tokenizer, 'x');
  EXPECT_THAT(*tokenizer.Encode("xx<a>xx"), ElementsAre(x, x, first, x, x));
}

TEST(TokenizerTest, IgnoreMergesTakesWholeTokens) {
  TokenizerSpec spec = SmallSpec({{"a", "b"}, {"b", "c"}, {"a", "bc"}});
  const Ids merged = {262, ByteId(MakeTokenizer(spec), 'c')};
  EXPECT_THAT(*MakeTokenizer(spec).Encode("abc"), ElementsAreArray(merged));
  spec.ignore_merges = true;
  EXPECT_THAT(*MakeTokenizer(spec).Encode("abc"), ElementsAre(264));
}

TEST(TokenizerTest, TheCacheChangesNothing) {
  const Tokenizer warm = SmallTokenizer();
  for (uint64_t i = 0; i < 50; ++i) {
    const std::string text = RandomText(Rng(5, RngPurpose::kTest, i), 300);
    const Ids cold = *SmallTokenizer().Encode(text);
    ASSERT_EQ(*warm.Encode(text), cold);
    ASSERT_EQ(*warm.Encode(text), cold);
  }
  std::string numbers;  // more distinct words than the cache holds
  for (int i = 0; i < 150000; ++i)
    absl::StrAppend(&numbers, " w", i % 7, "h", std::string(1 + i % 30, 'l'), absl::Hex(i), "\n");
  EXPECT_EQ(*warm.Encode(numbers), *SmallTokenizer().Encode(numbers));
  EXPECT_EQ(*warm.Decode(*warm.Encode(numbers)), numbers);
}

TEST(TokenizerTest, ThreadsShareOneTokenizer) {
  const Tokenizer tokenizer = SmallTokenizer();
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (uint64_t i = 0; i < 40; ++i) {
    texts.push_back(RandomText(Rng(6, RngPurpose::kTest, i), 200));
    expected.push_back(*SmallTokenizer().Encode(texts.back()));
  }
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 400; ++i)
        wrong[t] += *tokenizer.Encode(texts[(i * 7 + t) % 40]) != expected[(i * 7 + t) % 40];
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST(TokenizerTest, LongWordsAreNotQuadratic) {
  const Tokenizer tokenizer = SmallTokenizer();
  for (const std::string unit : {"l", " ", "\n", "!", "1", "é", "漢"}) {
    std::string text;
    while (text.size() < 1000000) text += unit;
    EXPECT_EQ(*tokenizer.Decode(*tokenizer.Encode(text)), text);  // quadratic, this would end in the test's time limit
  }
}

TEST(SplitMergedTokensTest, SplitsPunctuationFromLineBreaks) {
  const Tokenizer tokenizer = SmallTokenizer();
  const Rng rng(9, RngPurpose::kTokenSplit, 0);
  const int32_t exclamation = ByteId(tokenizer, '!'), newline = ByteId(tokenizer, '\n');
  // "\n\n", ")." and "hello" stay: they are not punctuation followed by line breaks.
  const Ids ids = {265, 268, 267, 269, 271, 272, 1};
  EXPECT_EQ(tokenizer.SplitMergedTokens(ids, 0.0, rng), ids);
  EXPECT_THAT(tokenizer.SplitMergedTokens(ids, 1.0, rng),
              ElementsAre(265, exclamation, newline, 267, exclamation, 267, 271, 271, 270, 1));
  EXPECT_EQ(*tokenizer.Decode(tokenizer.SplitMergedTokens(ids, 1.0, rng)), *tokenizer.Decode(ids));
}

TEST(SplitMergedTokensTest, DecidesByPositionAlone) {
  const Tokenizer tokenizer = SmallTokenizer();
  const Ids ids(20000, 269);
  const Rng rng(9, RngPurpose::kTokenSplit, 4);
  const Ids split = tokenizer.SplitMergedTokens(ids, 0.25, rng);
  EXPECT_NEAR(static_cast<double>(split.size() - ids.size()) / 20000, 0.25, 0.02);  // six sigma
  EXPECT_EQ(tokenizer.SplitMergedTokens(ids, 0.25, rng), split);
  EXPECT_NE(tokenizer.SplitMergedTokens(ids, 0.25, Rng(9, RngPurpose::kTokenSplit, 5)), split);
  size_t position = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool whole = split[position] == 269;
    ASSERT_EQ(whole, rng.Uniform(i) >= 0.25);
    position += whole ? 1 : 2;
  }
}

TEST(TokenizerTest, TrainedTokenizerCompressesItsText) {
  const PreTokenizer pre_tokenizer = *PreTokenizer::Create(DeepSeekV3Patterns());
  WordCounter counter(&pre_tokenizer, 1);
  const std::string text = "the cat sat on the mat; the hat sat on the cat.\n\nthe end.\n\n";
  ASSERT_TRUE(counter.Add({text}).ok());
  const Tokenizer tokenizer = MakeTokenizer(*TrainBpe(counter.counts(), {.vocab_size = 280}));
  const Ids ids = *tokenizer.Encode(text);
  EXPECT_LT(ids.size(), text.size() / 2);
  EXPECT_EQ(*tokenizer.Decode(ids), text);
}

}  // namespace
}  // namespace shoestring
