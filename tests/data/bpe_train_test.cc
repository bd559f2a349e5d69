// Tests the trainer against a naive one that counts everything anew for each merge, and the counting of words.
#include "data/bpe_train.h"

#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/few_threads.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

// The definition: count all pairs of all words, take the most frequent (then the lowest), merge it everywhere.
TokenizerSpec NaiveTrain(const WordCounts& words, size_t vocab_size) {
  TokenizerSpec spec = *TrainBpe({}, {.vocab_size = 262});  // only the alphabet
  std::map<std::string, int32_t> ids;
  for (size_t id = 6; id < 262; ++id) ids[spec.tokens[id].bytes] = static_cast<int32_t>(id);
  std::vector<std::pair<std::vector<int32_t>, int64_t>> pieces;
  for (const auto& [word, count] : words) {
    std::vector<int32_t> symbols;
    for (const char c : word) symbols.push_back(ids.at(std::string(1, c)));
    pieces.emplace_back(symbols, count);
  }
  while (spec.tokens.size() < vocab_size) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& [symbols, count] : pieces) {
      for (size_t i = 0; i + 1 < symbols.size(); ++i) counts[{symbols[i], symbols[i + 1]}] += count;
    }
    std::pair<int32_t, int32_t> best;
    int64_t best_count = 0;
    for (const auto& [pair, count] : counts) {
      if (count > best_count) best = pair, best_count = count;
    }
    if (best_count == 0) break;
    const std::string bytes = spec.tokens[best.first].bytes + spec.tokens[best.second].bytes;
    const auto [place, is_new] = ids.emplace(bytes, static_cast<int32_t>(spec.tokens.size()));
    if (is_new) spec.tokens.push_back({.bytes = bytes});
    spec.merges.push_back({best.first, best.second, place->second});
    for (auto& [symbols, count] : pieces) {
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        if (symbols[i] != best.first || symbols[i + 1] != best.second) continue;
        symbols[i] = place->second;
        symbols.erase(symbols.begin() + i + 1);
      }
    }
  }
  return spec;
}

WordCounts RandomWords(uint64_t seed, int letters, int words, int longest, int64_t most) {
  const Rng rng(seed, RngPurpose::kTest, 1);
  WordCounts result;
  uint64_t index = 0;
  for (int i = 0; i < words; ++i) {
    std::string word;
    const uint64_t size = 1 + rng.Below(index++, longest);
    for (uint64_t k = 0; k < size; ++k) word.push_back(static_cast<char>('a' + rng.Below(index++, letters)));
    result[word] += 1 + static_cast<int64_t>(rng.Below(index++, most));
  }
  return result;
}

TEST(BpeTrainTest, AgreesWithTheNaiveTrainer) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    // Few letters make runs ("aaaa"), ties, and tokens that come about in two ways.
    const int letters = 1 + static_cast<int>(seed % 5);
    const WordCounts words = RandomWords(seed, letters, 60, 14, seed % 3 == 0 ? 1 : 20);
    const size_t reachable = NaiveTrain(words, 100000).tokens.size();
    const int32_t size = static_cast<int32_t>(std::min<size_t>(reachable, 262 + 80));
    const TokenizerSpec expected = NaiveTrain(words, size);
    const absl::StatusOr<TokenizerSpec> actual = TrainBpe(words, {.vocab_size = size});
    ASSERT_TRUE(actual.ok()) << actual.status();
    ASSERT_EQ(PrintTokenizerJson(*actual), PrintTokenizerJson(expected)) << "seed " << seed;
  }
}

TEST(BpeTrainTest, ByHand) {
  // (a,b) 7, (b,c) 5, (x,y) 5. After "ab": (ab,c) 5 and (x,y) 5; "x" is a lower id than "ab".
  const absl::StatusOr<TokenizerSpec> spec = TrainBpe({{"abc", 5}, {"ab", 2}, {"xy", 5}}, {.vocab_size = 265});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->tokens[262].bytes, "ab");
  EXPECT_EQ(spec->tokens[263].bytes, "xy");
  EXPECT_EQ(spec->tokens[264].bytes, "abc");
  EXPECT_EQ(spec->tokens[0].bytes, "<｜begin▁of▁sentence｜>");
  EXPECT_TRUE(spec->tokens[0].special);
  EXPECT_EQ(spec->tokens[6].bytes, "!");
}

TEST(BpeTrainTest, ReportsProgress) {
  std::vector<std::pair<int64_t, int64_t>> calls;
  BpeTrainOptions options;
  options.vocab_size = 264;
  options.progress = [&](int64_t done, int64_t total) { calls.emplace_back(done, total); };
  ASSERT_TRUE(TrainBpe({{"abc", 5}}, options).ok());
  ASSERT_FALSE(calls.empty());
  EXPECT_THAT(calls.front(), Pair(263, 264));
  EXPECT_THAT(calls.back(), Pair(264, 264));
}

TEST(BpeTrainTest, SaysWhatIsImpossible) {
  BpeTrainOptions options;
  options.vocab_size = 261;
  EXPECT_THAT(TrainBpe({}, options).status().message(), HasSubstr("a vocabulary of 261 is below 262"));
  options.vocab_size = 300;
  const absl::Status starved = TrainBpe({{"abc", 5}}, options).status();
  EXPECT_EQ(starved.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(starved.message(), HasSubstr("a vocabulary of 264 only, not of 300"));
  options.special_tokens = {"<s>"};
  EXPECT_THAT(TrainBpe({}, options).status().message(), HasSubstr("special token '<s>' needs"));
  options.special_tokens = {"<｜s｜>", "<｜s｜>"};
  EXPECT_THAT(TrainBpe({}, options).status().message(), HasSubstr("'<｜s｜>' twice"));
  options.special_tokens = {"\xFF"};
  EXPECT_THAT(TrainBpe({}, options).status().message(), HasSubstr("special token: invalid UTF-8 at byte 0"));
}

TEST(WordCounterTest, CountsPreTokens) {
  const PreTokenizer pre_tokenizer = *PreTokenizer::Create(DeepSeekV3Patterns());
  WordCounter counter(&pre_tokenizer, 2);
  ASSERT_TRUE(counter.Add({"the cat", "the dog the"}).ok());
  ASSERT_TRUE(counter.Add({" cat"}).ok());
  EXPECT_THAT(counter.counts(),
              UnorderedElementsAre(Pair("the", 2), Pair(" the", 1), Pair(" cat", 2), Pair(" dog", 1)));
}

TEST(WordCounterTest, NeitherThreadsNorCutsMatter) {
  const Rng rng(3, RngPurpose::kTest, 0);
  std::string text;
  for (uint64_t i = 0; text.size() < 5000000; ++i) {
    absl::StrAppend(&text, "word", rng.Below(2 * i, 5000), i % 11 == 0 ? ".\n\n" : i % 7 == 0 ? "\nx" : " ");
  }
  const PreTokenizer pre_tokenizer = *PreTokenizer::Create(DeepSeekV3Patterns());
  WordCounts whole;
  PreTokenizer::Scratch scratch;
  ASSERT_TRUE(pre_tokenizer.Split(text, scratch, [&](absl::string_view word) { ++whole[word]; }).ok());
  std::string json;
  for (const int threads : {1, 2, 5}) {
    WordCounter counter(&pre_tokenizer, threads);
    ASSERT_TRUE(counter.Add({text}).ok());
    EXPECT_EQ(counter.counts(), whole) << threads << " threads";
    const std::string trained = PrintTokenizerJson(*TrainBpe(counter.counts(), {.vocab_size = 300}));
    if (json.empty()) json = trained;
    EXPECT_EQ(trained, json) << threads << " threads";
  }
}

TEST(WordCounterDeathTest, CountsAloneWhereTheSystemGivesNoThread) {
  EXPECT_EXIT(
      {
        AllowFewThreads(0);
        const PreTokenizer pre_tokenizer = *PreTokenizer::Create(DeepSeekV3Patterns());
        WordCounter counter(&pre_tokenizer, 8);
        const bool counted = counter.Add({"the cat", "the dog the"}).ok();
        std::exit(counted && counter.counts().at("the") == 2 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "the system gives 0 of 7 threads");
}

TEST(WordCounterTest, NamesTheMalformedDocumentAndAddsNothing) {
  const PreTokenizer pre_tokenizer = *PreTokenizer::Create(DeepSeekV3Patterns());
  WordCounter counter(&pre_tokenizer, 2);
  EXPECT_EQ(counter.Add({"fine", "bad \xC3"}).message(), "document 1: invalid UTF-8 at byte 4 (0xc3)");
  EXPECT_TRUE(counter.counts().empty());
}

}  // namespace
}  // namespace shoestring
