// Blends: Megatron's greedy order where it keeps the shares, exact shares always, any sample by look-up.
#include "data/blend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "base/rng.h"

namespace shoestring {
namespace {

Blend Make(const std::vector<double>& weights) {
  auto blend = Blend::Create(weights);
  CHECK(blend.ok());
  return *blend;
}

// Megatron's rule in double precision: largest weight * max(i, 1) - count, the first among equals.
std::vector<int64_t> Greedy(std::vector<double> weights, int64_t samples) {
  double total = 0;
  for (const double weight : weights) total += weight;
  std::vector<int64_t> counts(weights.size(), 0), picks;
  for (int64_t i = 0; i < samples; ++i) {
    size_t best = 0;
    double best_error = -1e300;
    for (size_t s = 0; s < weights.size(); ++s) {
      const double error =
          weights[s] / total * static_cast<double>(std::max<int64_t>(i, 1)) - static_cast<double>(counts[s]);
      if (error > best_error + 1e-9) {
        best = s;
        best_error = error;
      }
    }
    ++counts[best];
    picks.push_back(static_cast<int64_t>(best));
  }
  return picks;
}

TEST(BlendTest, DecimalWeightsGiveShortExactPeriods) {
  EXPECT_EQ(Make({0.7, 0.3}).period(), 10);
  EXPECT_EQ(Make({949, 50, 1}).period(), 1000);
  EXPECT_EQ(Make({2, 2, 4}).period(), 4);
  EXPECT_EQ(Make({0.125, 0.875}).period(), 8);
  EXPECT_EQ(Make({5}).period(), 1);
  EXPECT_EQ(Make({1.0 / 3.0, 2.0 / 3.0}).period(), 65536);
}

TEST(BlendTest, FollowsTheGreedyRuleThroughAPeriod) {
  for (const std::vector<double>& weights : std::vector<std::vector<double>>{
           {0.7, 0.3}, {0.3, 0.7}, {0.5, 0.25, 0.25}, {6, 3, 1}, {949, 50, 1}, {1, 1, 1, 1}, {0.99, 0.01}}) {
    const Blend blend = Make(weights);
    const std::vector<int64_t> greedy = Greedy(weights, blend.period());
    for (int64_t i = 0; i < blend.period(); ++i) ASSERT_EQ(blend.At(i).source, greedy[i]) << i;
  }
}

TEST(BlendTest, EachSourceGivesItsSamplesInOrderAndItsShareExactly) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const Rng rng(seed, RngPurpose::kTest, 0);
    std::vector<double> weights;
    for (uint64_t s = 0; s <= seed % 9; ++s) weights.push_back(0.0001 + rng.Uniform(s));
    const Blend blend = Make(weights);
    double total = 0;
    for (const double weight : weights) total += weight;
    std::vector<int64_t> next(weights.size(), 0);
    for (int64_t i = 0; i < 2 * blend.period(); ++i) {
      const BlendPick pick = blend.At(i);
      ASSERT_EQ(pick.sample, next[pick.source]++);
      if (i + 1 == blend.period()) {
        for (size_t s = 0; s < weights.size(); ++s) ASSERT_EQ(next[s], blend.PerPeriod(static_cast<int64_t>(s)));
      }
    }
    for (size_t s = 0; s < weights.size(); ++s) {
      const double wanted = weights[s] / total * static_cast<double>(blend.period());
      EXPECT_NEAR(static_cast<double>(blend.PerPeriod(static_cast<int64_t>(s))), wanted, 1.0);
    }
  }
}

TEST(BlendTest, SharesAreNeverFarOffOnTheWay) {
  const std::vector<double> weights = {0.45, 0.25, 0.15, 0.1, 0.05};
  const Blend blend = Make(weights);
  std::vector<int64_t> counts(weights.size(), 0);
  for (int64_t i = 0; i < 1000; ++i) {
    ++counts[blend.At(i).source];
    for (size_t s = 0; s < weights.size(); ++s) {
      ASSERT_LT(std::abs(weights[s] * static_cast<double>(i + 1) - static_cast<double>(counts[s])), 2.0);
    }
  }
}

TEST(BlendTest, RareSourcesAreNotForgotten) {
  const Blend blend = Make({1e9 / 3, 1e-9, 1e-9});
  EXPECT_EQ(blend.PerPeriod(1), 1);
  EXPECT_EQ(blend.PerPeriod(2), 1);
  EXPECT_EQ(blend.PerPeriod(0), 65534);
}

TEST(BlendTest, FarSamplesAreALookUp) {
  const Blend blend = Make({0.7, 0.3});
  const int64_t far = int64_t{1} << 60;
  const BlendPick pick = blend.At(far);
  EXPECT_EQ(pick.source, blend.At(far % 10).source);
  EXPECT_EQ(pick.sample, far / 10 * blend.PerPeriod(pick.source) + blend.At(far % 10).sample);
}

TEST(BlendTest, BadWeightsAreRefused) {
  for (const std::vector<double>& weights : std::vector<std::vector<double>>{
           {}, {0}, {1, -1}, {std::nan("")}, {1, INFINITY}, {1e13}, std::vector<double>(4097, 1.0)}) {
    EXPECT_EQ(Blend::Create(weights).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace shoestring
