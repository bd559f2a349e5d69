// Batches: blended, and refused when prepared otherwise.
#include "data/token_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

class TokenSourceTest : public ::testing::Test {
 protected:
  TokenSourceTest() {
    ShardMeta meta = SmallMeta();
    meta.packing = Packing::kBestFit;
    meta.sequence_length = 4;
    meta.settings.fim_rate = 0.1;
    std::vector<std::vector<int32_t>> low, high;
    for (int32_t i = 0; i < 30; ++i) low.push_back({10 + i, 100, 1});
    for (int32_t i = 0; i < 50; ++i) high.push_back({200 + i, 100, 100, 100, 1});
    WriteShard(home_ / "low", low, meta);
    WriteShard(home_ / "high", high, meta);
    options_.sources = {{home_ / "low", 0.75}, {home_ / "high", 0.25}};
    options_.tokenizer_fingerprint = "tok";
    options_.sampler = {4, 1, 9, true};
  }
  std::unique_ptr<BlendedSource> MustOpen() {
    auto source = BlendedSource::Open(PosixFileSystem(), options_);
    CHECK(source.ok());
    return *std::move(source);
  }
  static std::vector<int32_t> Batch(TokenSource& source, int64_t first, int64_t samples) {
    std::vector<int32_t> tokens(static_cast<size_t>(samples * source.row_tokens()), 777);
    CHECK(source.Fill(first, samples, tokens.data()).ok());
    return tokens;
  }
  TestDirectory home_;
  TokenSourceOptions options_;
};

TEST_F(TokenSourceTest, SharesAreKeptAndEpochsOfEachSourceAreWhole) {
  const auto source = MustOpen();
  std::map<int32_t, int> first_tokens;
  for (const int64_t k : {0, 40, 80, 120, 160}) {
    const auto batch = Batch(*source, k, 40);
    for (int64_t s = 0; s < 40; ++s) ++first_tokens[batch[static_cast<size_t>(s * 6)]];
  }
  // 200 samples: 150 of 30 low ones, 50 of 50 high ones.
  EXPECT_EQ(first_tokens.size(), 80);
  for (const auto& [token, count] : first_tokens) EXPECT_EQ(count, token < 100 ? 5 : 1) << token;
}

TEST_F(TokenSourceTest, ContentDependsOnTheSampleNumberAlone) {
  const auto source = MustOpen();
  const auto all = Batch(*source, 0, 64);
  for (const int64_t size : {1, 5, 16}) {
    for (int64_t first = 64 - size; first >= 0; first -= size) {  // backwards
      const auto batch = Batch(*source, first, size);
      EXPECT_TRUE(std::equal(batch.begin(), batch.end(), all.begin() + first * 6)) << first;
    }
  }
}

TEST_F(TokenSourceTest, DescriptionNamesWhatDecidesTheContent) {
  const std::string description = MustOpen()->Description();
  EXPECT_EQ(MustOpen()->Description(), description);
  options_.sampler.seed = 10;
  EXPECT_NE(MustOpen()->Description(), description);
  options_.sampler.seed = 9;
  options_.sources[0].weight = 0.76;
  EXPECT_NE(MustOpen()->Description(), description);
  options_.sources = {options_.sources[1]};
  EXPECT_NE(MustOpen()->Description(), description);
}

TEST_F(TokenSourceTest, TheTableShowsWantedAndAchievedShares) {
  EXPECT_THAT(MustOpen()->BlendTable(), HasSubstr("75.0000%   75.0000%             90             30"));
}

TEST_F(TokenSourceTest, OtherPreparationsAreRefused) {
  const auto message = [this] {
    const auto source = BlendedSource::Open(PosixFileSystem(), options_);
    EXPECT_EQ(source.status().code(), absl::StatusCode::kDataLoss);
    return std::string(source.status().message());
  };
  const TokenSourceOptions good = options_;
  options_.packing = Packing::kConcatenate;
  EXPECT_THAT(message(), HasSubstr("prepared with packing BEST_FIT, the run says CONCATENATE"));
  options_ = good;
  options_.fim_rate = 0.2;
  EXPECT_THAT(message(), HasSubstr("a fill-in-the-middle rate of 0.1, the run says 0.2"));
  options_ = good;
  options_.token_split_rate = 0.5;
  EXPECT_THAT(message(), HasSubstr("token split rate of 0"));
  options_ = good;
  options_.tokenizer_fingerprint = "other";
  EXPECT_THAT(message(), HasSubstr("prepared with tokenizer tok"));
  options_ = good;
  options_.packing = Packing::kBestFit;
  options_.fim_rate = 0.1;
  options_.token_split_rate = 0.0;
  EXPECT_TRUE(BlendedSource::Open(PosixFileSystem(), options_).ok());
}

}  // namespace
}  // namespace shoestring
