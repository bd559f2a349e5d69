// Samples: every one once an epoch, a function of its number alone, with the tokens that belong to it.
#include "data/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "data/permutation.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PermutationTest, IsABijectionForEverySmallSize) {
  for (int64_t size = 1; size <= 300; ++size) {
    const Permutation permutation(Rng(9, RngPurpose::kTest, 1), size);
    std::vector<bool> seen(size, false);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t value = permutation(i);
      ASSERT_TRUE(value >= 0 && value < size && !seen[value]) << size << ": " << i;
      seen[value] = true;
    }
  }
}

TEST(PermutationTest, ReachesEverywhereInHugeSizes) {
  for (const int64_t size : {(int64_t{1} << 33) + 1, (int64_t{1} << 62) - 5, int64_t{1} << 62}) {
    const Permutation permutation(Rng(9, RngPurpose::kTest, 1), size);
    std::set<int64_t> values;
    int64_t high = 0;
    for (int64_t i = 0; i < 1000; ++i) {
      const int64_t value = permutation(i);
      ASSERT_TRUE(value >= 0 && value < size);
      values.insert(value);
      high += value >= size / 2 ? 1 : 0;
    }
    EXPECT_EQ(values.size(), 1000);
    EXPECT_NEAR(static_cast<double>(high), 500.0, 60.0);
  }
}

TEST(PermutationTest, EveryPlaceIsEquallyLikely) {
  // 8 values over 8 places in 8000 permutations: 1000 each, standard deviation 30.
  std::vector<std::vector<int>> counts(8, std::vector<int>(8, 0));
  std::set<std::vector<int64_t>> orders;
  for (uint64_t stream = 0; stream < 8000; ++stream) {
    const Permutation permutation(Rng(1, RngPurpose::kTest, stream), 8);
    std::vector<int64_t> order;
    for (int64_t i = 0; i < 8; ++i) {
      order.push_back(permutation(i));
      ++counts[i][order.back()];
    }
    orders.insert(order);
  }
  for (const auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, 1000, 150);
  }
  // Of 8! = 40320 orders, 8000 draws at random would meet about 7260 distinct ones. XOR with a function of one bit
  // reaches even permutations only, so twice as many coincide here at most.
  EXPECT_GT(orders.size(), 6000);
}

class SamplerTest : public ::testing::Test {
 protected:
  std::shared_ptr<const ShardReader> Shard(const std::string& name, const std::vector<std::vector<int32_t>>& sequences,
                                           int64_t packed_for = 0) {
    ShardMeta meta = SmallMeta();
    meta.packing = packed_for > 0 ? Packing::kBestFit : Packing::kConcatenate;
    meta.sequence_length = packed_for;
    WriteShard(home_ / name, sequences, meta);
    auto shard = ShardReader::Open(PosixFileSystem(), home_ / name, {});
    CHECK(shard.ok());
    return *std::move(shard);
  }
  // A shard of the tokens 10, 11, 12, ...
  std::shared_ptr<const ShardReader> Counting(int64_t tokens) {
    std::vector<int32_t> sequence;
    for (int64_t i = 0; i < tokens; ++i) sequence.push_back(static_cast<int32_t>(10 + i));
    return Shard("counting", {sequence});
  }
  static std::vector<int32_t> Row(const Sampler& sampler, int64_t k) {
    std::vector<int32_t> row(static_cast<size_t>(sampler.row_tokens()), 777);
    CHECK(sampler.Read(k, row.data()).ok());
    return row;
  }
  TestDirectory home_;
};

TEST_F(SamplerTest, WindowsCoverTheStreamAndOverlapByTheirTargets) {
  const auto shard = Counting(12);
  const auto sampler = Sampler::Create(shard, {4, 1, 0, false});
  ASSERT_TRUE(sampler.ok());
  EXPECT_EQ(sampler->samples_per_epoch(), 3);
  EXPECT_THAT(Row(*sampler, 0), ElementsAre(10, 11, 12, 13, 14, 15));
  EXPECT_THAT(Row(*sampler, 1), ElementsAre(14, 15, 16, 17, 18, 19));
  EXPECT_THAT(Row(*sampler, 2), ElementsAre(18, 19, 20, 21, kNoToken, kNoToken));
  EXPECT_THAT(Row(*sampler, 3), ElementsAre(10, 11, 12, 13, 14, 15));
}

TEST_F(SamplerTest, EveryTokenButTheFirstIsATargetOnce) {
  for (int64_t tokens = 2; tokens < 40; ++tokens) {
    const auto shard = Counting(tokens);
    for (const int64_t length : {1, 3, 8, 50}) {
      const auto sampler = Sampler::Create(shard, {length, 2, 1, true});
      ASSERT_TRUE(sampler.ok());
      std::multiset<int32_t> targets;
      for (int64_t k = 0; k < sampler->samples_per_epoch(); ++k) {
        const auto row = Row(*sampler, k);
        for (int64_t t = 1; t <= length; ++t) {
          if (row[t] != kNoToken) targets.insert(row[t]);
        }
      }
      std::multiset<int32_t> wanted;
      for (int64_t i = 1; i < tokens; ++i) wanted.insert(static_cast<int32_t>(10 + i));
      ASSERT_EQ(targets, wanted) << tokens << " " << length;
    }
  }
}

TEST_F(SamplerTest, APackedSequenceIsASample) {
  const auto shard = Shard("packed", {{5, 6, 7, 8, 9}, {5, 1, 6, 1}, {7, 1}}, 4);
  const auto sampler = Sampler::Create(shard, {4, 2, 0, false});
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  EXPECT_EQ(sampler->samples_per_epoch(), 3);
  EXPECT_THAT(Row(*sampler, 0), ElementsAre(5, 6, 7, 8, 9, kNoToken, kNoToken));
  EXPECT_THAT(Row(*sampler, 2), ElementsAre(7, 1, kNoToken, kNoToken, kNoToken, kNoToken, kNoToken));
}

TEST_F(SamplerTest, EachEpochHoldsEachSampleOnceInAnOrderOfItsOwn) {
  const auto sampler = Sampler::Create(Counting(101), {1, 0, 3, true});
  ASSERT_TRUE(sampler.ok());
  std::vector<std::vector<int64_t>> epochs;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> places;
    for (int64_t k = 0; k < 100; ++k) places.push_back(sampler->PlaceOf(epoch * 100 + k));
    epochs.push_back(places);
    std::sort(places.begin(), places.end());
    for (int64_t i = 0; i < 100; ++i) ASSERT_EQ(places[i], i);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

TEST_F(SamplerTest, SeedAndContentDecideTheOrderNotThePlaceOnDisk) {
  const auto places = [](const Sampler& sampler) {
    std::vector<int64_t> all;
    for (int64_t k = 0; k < sampler.samples_per_epoch(); ++k) all.push_back(sampler.PlaceOf(k));
    return all;
  };
  const std::vector<std::vector<int32_t>> sequences(40, {5, 6, 1});
  std::vector<std::vector<int32_t>> other = sequences;
  other[7][0] = 9;
  const auto here = Sampler::Create(Shard("here", sequences), {2, 0, 3, true});
  const auto there = Sampler::Create(Shard("there", sequences), {2, 0, 3, true});
  EXPECT_EQ(places(*here), places(*there));
  EXPECT_NE(places(*here), places(*Sampler::Create(Shard("here", sequences), {2, 0, 4, true})));
  EXPECT_NE(places(*here), places(*Sampler::Create(Shard("other", other), {2, 0, 3, true})));
}

TEST_F(SamplerTest, ShardsThatDoNotFitAreRefused) {
  const auto wrong = Sampler::Create(Shard("packed", {{5, 6}}, 8), {4, 0, 0, true});
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(wrong.status().message(), HasSubstr("packed for a sequence length of 8, the run has 4"));
  EXPECT_EQ(Sampler::Create(Counting(1), {4, 0, 0, true}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Sampler::Create(Shard("empty", {}), {4, 0, 0, true}).status().code(), absl::StatusCode::kDataLoss);
  const auto sampler = Sampler::Create(Shard("long", {{5, 6, 7, 8}}, 2), {2, 0, 0, true});
  std::vector<int32_t> row(3);
  EXPECT_EQ(sampler->Read(0, row.data()).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace shoestring
