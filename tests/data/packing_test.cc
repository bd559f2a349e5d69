// Best-fit packing: every piece once, no bin too full, and the bins of the plain definition.
#include "data/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;

// Best-fit decreasing as the paper states it: for each piece, longest first, look at all bins.
int64_t NaiveBins(std::vector<int32_t> lengths, int32_t capacity) {
  std::sort(lengths.rbegin(), lengths.rend());
  std::vector<int32_t> rooms;
  for (const int32_t length : lengths) {
    auto best = rooms.end();
    for (auto room = rooms.begin(); room != rooms.end(); ++room) {
      if (*room >= length && (best == rooms.end() || *room < *best)) best = room;
    }
    if (best == rooms.end()) best = rooms.insert(rooms.end(), capacity);
    *best -= length;
  }
  return static_cast<int64_t>(rooms.size());
}

std::vector<int32_t> RandomLengths(uint64_t seed, int64_t count, int32_t capacity) {
  const Rng rng(seed, RngPurpose::kTest, 0);
  std::vector<int32_t> lengths;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bound = 1 + rng.Below(2 * i, static_cast<uint64_t>(capacity));  // short pieces more often
    lengths.push_back(static_cast<int32_t>(1 + rng.Below(2 * i + 1, bound)));
  }
  return lengths;
}

TEST(PackingTest, AnExampleByHand) {
  // Falling: 7 6 4 4 3 2 1 in bins of 10: {7 3} {6 4} {4 2 1}.
  const PackedBins packed = PackBestFit({4, 7, 1, 6, 3, 4, 2}, 10);
  EXPECT_THAT(packed.bin_ends, ElementsAre(2, 4, 7));
  EXPECT_EQ(packed.pieces.size(), 7);
  for (int64_t bin = 0, next = 0; bin < packed.bins(); ++bin) {
    EXPECT_TRUE(std::is_sorted(packed.pieces.begin() + next, packed.pieces.begin() + packed.bin_ends[bin]));
    next = packed.bin_ends[bin];
  }
}

TEST(PackingTest, NothingPacksToNothing) { EXPECT_EQ(PackBestFit({}, 8).bins(), 0); }

TEST(PackingTest, FullPiecesStandAlone) { EXPECT_THAT(PackBestFit({8, 8, 1, 8}, 8).bin_ends, ElementsAre(1, 2, 3, 4)); }

TEST(PackingTest, RandomPiecesArePackedOnceAndAsTheDefinitionSays) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const auto capacity = static_cast<int32_t>(1 + seed * 3);
    const std::vector<int32_t> lengths = RandomLengths(seed, 1 + static_cast<int64_t>(seed * 7), capacity);
    const PackedBins packed = PackBestFit(lengths, capacity);
    std::vector<int32_t> seen = packed.pieces;
    std::sort(seen.begin(), seen.end());
    std::vector<int32_t> all(lengths.size());
    std::iota(all.begin(), all.end(), 0);
    ASSERT_EQ(seen, all);
    ASSERT_EQ(packed.bins(), NaiveBins(lengths, capacity));
    int64_t next = 0;
    int32_t first_of_last_bin = -1;
    for (const int64_t end : packed.bin_ends) {
      ASSERT_GT(packed.pieces[next], first_of_last_bin);
      first_of_last_bin = packed.pieces[next];
      int32_t filled = 0;
      for (; next < end; ++next) filled += lengths[packed.pieces[next]];
      ASSERT_LE(filled, capacity);
      ASSERT_GT(filled, 0);
    }
    ASSERT_EQ(next, static_cast<int64_t>(lengths.size()));
  }
}

TEST(PackingTest, AMillionPiecesLeaveLittleRoom) {
  const std::vector<int32_t> lengths = RandomLengths(1, 1000000, 4097);
  const PackedBins packed = PackBestFit(lengths, 4097);
  const auto total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  EXPECT_GT(static_cast<double>(total) / static_cast<double>(packed.bins() * 4097), 0.999);
}

}  // namespace
}  // namespace shoestring
