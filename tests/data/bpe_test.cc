// Tests the merger against a naive merge loop, the word cache, and the byte alphabet.
#include "data/bpe.h"

#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "data/bpe_alphabet.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;

std::array<int32_t, 256> IdentityBytes() {
  std::array<int32_t, 256> ids;
  for (int i = 0; i < 256; ++i) ids[i] = i;
  return ids;
}

// The definition: look at all pairs, merge the leftmost of the lowest rank, begin again.
std::vector<int32_t> NaiveEncode(const std::string& word, const std::vector<BpeMerge>& merges) {
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  for (size_t i = 0; i < merges.size(); ++i) ranks[{merges[i].left, merges[i].right}] = i;
  std::vector<int32_t> ids;
  for (const char c : word) ids.push_back(static_cast<uint8_t>(c));
  while (true) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found != ranks.end() && found->second < best_rank) {
        best_rank = found->second;
        best = i;
      }
    }
    if (best_rank == merges.size()) return ids;
    ids[best] = merges[best_rank].product;
    ids.erase(ids.begin() + best + 1);
  }
}

// Merges over the letters a-d and their products, in random order of precedence; two pairs may have one product.
std::vector<BpeMerge> RandomMerges(const Rng& rng, int count) {
  std::vector<std::string> tokens(256);
  std::vector<int32_t> usable = {'a', 'b', 'c', 'd'};
  for (const int32_t id : usable) tokens[id] = std::string(1, static_cast<char>(id));
  std::map<std::string, int32_t> ids;
  std::map<std::pair<int32_t, int32_t>, bool> seen;
  std::vector<BpeMerge> merges;
  for (uint64_t i = 0; static_cast<int>(merges.size()) < count; ++i) {
    const int32_t left = usable[rng.Below(2 * i, usable.size())];
    const int32_t right = usable[rng.Below(2 * i + 1, usable.size())];
    if (seen[{left, right}]) continue;
    seen[{left, right}] = true;
    const std::string bytes = tokens[left] + tokens[right];
    const auto [place, is_new] = ids.emplace(bytes, static_cast<int32_t>(tokens.size()));
    if (is_new) {
      tokens.push_back(bytes);
      usable.push_back(place->second);
    }
    merges.push_back({left, right, place->second});
  }
  for (size_t i = merges.size() - 1; i > 0; --i) {
    std::swap(merges[i], merges[rng.Below(1000000 + i, i + 1)]);
  }
  return merges;
}

TEST(BpeMergerTest, SmallExamplesByHand) {
  const std::vector<BpeMerge> merges = {{'b', 'c', 300}, {'a', 'b', 301}, {'a', 300, 302}, {'a', 'a', 303}};
  const BpeMerger merger(IdentityBytes(), merges);
  BpeMerger::Scratch scratch;
  const auto encode = [&](const std::string& word) {
    std::vector<int32_t> ids;
    merger.Encode(word, scratch, &ids);
    return ids;
  };
  EXPECT_THAT(encode("abc"), ElementsAre(302));
  EXPECT_THAT(encode("ab"), ElementsAre(301));
  EXPECT_THAT(encode("aabc"), ElementsAre('a', 302));
  EXPECT_THAT(encode("aaaab"), ElementsAre(303, 'a', 301));
  EXPECT_THAT(encode("aaa"), ElementsAre(303, 'a'));
  EXPECT_THAT(encode("x"), ElementsAre('x'));
  EXPECT_TRUE(encode("").empty());
}

TEST(BpeMergerTest, AgreesWithTheNaiveLoopOnShortAndLongWords) {
  for (uint64_t table = 0; table < 40; ++table) {
    const Rng rng(7, RngPurpose::kTest, table);
    const std::vector<BpeMerge> merges = RandomMerges(rng, 5 + 3 * static_cast<int>(table));
    const BpeMerger merger(IdentityBytes(), merges);
    BpeMerger::Scratch scratch;
    for (uint64_t i = 0; i < 60; ++i) {
      std::string word;
      const uint64_t size = rng.Below(2000000 + i, 120);
      for (uint64_t k = 0; k < size; ++k) word.push_back("abcde"[rng.Below(3000000 + 200 * i + k, i % 2 ? 5 : 2)]);
      std::vector<int32_t> ids = {-7};
      merger.Encode(word, scratch, &ids);
      ASSERT_EQ(ids.front(), -7);  // appends
      ids.erase(ids.begin());
      ASSERT_EQ(ids, NaiveEncode(word, merges)) << word << " with table " << table;
    }
  }
}

TEST(BpeMergerTest, AMillionBytesInOneWordTakeWellUnderASecond) {
  std::vector<BpeMerge> merges = {{'a', 'a', 256}};
  for (int i = 0; i < 12; ++i) merges.push_back({256 + i, 256 + i, 257 + i});
  const BpeMerger merger(IdentityBytes(), merges);
  BpeMerger::Scratch scratch;
  std::vector<int32_t> ids;
  const auto start = std::chrono::steady_clock::now();
  merger.Encode(std::string(1000000, 'a'), scratch, &ids);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(ids.front(), 268);
  EXPECT_EQ(ids.size(), 1000000 / 8192 + 2);  // 122 of 8192 letters, 576 = 512 + 64 are left
  EXPECT_LT(taken.count(), 10.0);             // takes 0.2 s; a quadratic one would take hours
}

TEST(BpeWordCacheTest, RemembersAndForgets) {
  BpeWordCache cache(3);
  std::vector<int32_t> ids;
  EXPECT_FALSE(cache.Append("a", &ids));
  cache.Insert("a", {1, 2});
  cache.Insert("", {});
  cache.Insert("b", {3});
  EXPECT_TRUE(cache.Append("a", &ids));
  EXPECT_TRUE(cache.Append("b", &ids));
  EXPECT_TRUE(cache.Append("", &ids));
  EXPECT_THAT(ids, ElementsAre(1, 2, 3));
  cache.Insert("c", {4});  // full: all is forgotten first
  EXPECT_EQ(cache.size(), 1u);
  EXPECT_FALSE(cache.Append("a", &ids));
  EXPECT_TRUE(cache.Append("c", &ids));
  EXPECT_THAT(ids, ElementsAre(1, 2, 3, 4));
}

TEST(BpeAlphabetTest, KnownSpellings) {
  EXPECT_EQ(SpellBytes(" the\n"), "ĠtheĊ");
  EXPECT_EQ(SpellBytes(absl::string_view("\0\x7F\xAD\xFF", 4)), "ĀġŃÿ");
  EXPECT_EQ(SpellBytes("é"), "Ã©");
  EXPECT_EQ(UnspellBytes("Ġa"), " a");
  EXPECT_EQ(UnspellBytes(" a"), std::nullopt);  // a space is never spelled as itself
  EXPECT_EQ(UnspellBytes("ń"), std::nullopt);   // U+0144, one beyond the alphabet
  EXPECT_EQ(UnspellBytes("\u00ad"), std::nullopt);
}

TEST(BpeAlphabetTest, EveryByteSurvivesAndTheOrderIsThatOfTheCharacters) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(UnspellBytes(SpellBytes(all)), all);
  const std::array<uint8_t, 256> order = BytesInAlphabetOrder();
  EXPECT_EQ(order[0], '!');
  EXPECT_EQ(order[187], 0xFF);
  EXPECT_EQ(order[188], 0x00);
  EXPECT_EQ(order[255], 0xAD);
  for (int i = 1; i < 256; ++i) {
    EXPECT_LT(SpellBytes(std::string(1, static_cast<char>(order[i - 1]))),
              SpellBytes(std::string(1, static_cast<char>(order[i]))));
  }
}

}  // namespace
}  // namespace shoestring
