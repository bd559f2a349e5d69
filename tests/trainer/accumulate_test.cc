// Canonical sums: the tree against its literal definition, accumulators against plain loops, bit for bit.
#include "trainer/accumulate.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "trainer/memory_block.h"

namespace shoestring {
namespace {

// docs/numerics.md, word for word: a group of n splits at the largest power of two below n.
std::string TreeText(int first, int n) {
  if (n == 1) return absl::StrCat(first);
  int split = 1;
  while (split * 2 < n) split *= 2;
  return absl::StrCat("(", TreeText(first, split), "+", TreeText(first + split, n - split), ")");
}

TEST(TreeFoldTest, IsTheTreeOfTheDefinition) {
  EXPECT_EQ(TreeText(0, 6), "(((0+1)+(2+3))+(4+5))");
  for (int n = 1; n <= 70; ++n) {
    std::vector<std::string> items;
    TreeFold fold;
    const auto merge = [&](int left, int right) {
      items[left] = absl::StrCat("(", items[left], "+", items[right], ")");
    };
    for (int i = 0; i < n; ++i) {
      items.push_back(absl::StrCat(i));
      fold.Push(i, merge);
    }
    EXPECT_EQ(items[fold.Finish(merge)], TreeText(0, n));
  }
}

TEST(TreeFoldTest, HoldsAsManyItemsAsAnnounced) {
  EXPECT_EQ(AccumulatorSets(1), 1);
  EXPECT_EQ(AccumulatorSets(2), 2);
  EXPECT_EQ(AccumulatorSets(3), 2);
  EXPECT_EQ(AccumulatorSets(4), 3);
  EXPECT_EQ(AccumulatorSets(1024), 11);
  for (int n = 1; n <= 40; ++n) {
    int held = 0, most = 0;
    TreeFold fold;
    const auto merge = [&](int, int) { --held; };
    for (int i = 0; i < n; ++i) {
      most = std::max(most, ++held);
      fold.Push(i, merge);
    }
    fold.Finish(merge);
    EXPECT_EQ(held, 1);
    EXPECT_EQ(most, AccumulatorSets(n)) << n;
  }
}

double TreeSumByDefinition(const std::vector<double>& values) {
  if (values.size() == 1) return values[0];
  size_t split = 1;
  while (split * 2 < values.size()) split *= 2;
  return TreeSumByDefinition({values.begin(), values.begin() + split}) +
         TreeSumByDefinition({values.begin() + split, values.end()});
}

TEST(CanonicalSumTest, LanesTimesWaves) {
  const Rng rng(1, RngPurpose::kTest, 2);
  for (int64_t lanes : {1, 2, 3, 4, 6, 7}) {
    for (int64_t waves : {1, 2, 5}) {
      std::vector<double> values(lanes * waves), sums(lanes, 0.0);
      for (size_t i = 0; i < values.size(); ++i) values[i] = rng.Normal(i) * std::pow(10.0, i % 7);
      for (int64_t l = 0; l < lanes; ++l) {
        for (int64_t w = 0; w < waves; ++w) sums[l] += values[l * waves + w];
      }
      EXPECT_EQ(CanonicalSum(values.data(), lanes, waves), TreeSumByDefinition(sums)) << lanes << " x " << waves;
    }
  }
}

Parameter Make(const std::string& name, int64_t stack, int64_t rows, int64_t cols, int uses, bool trained = true) {
  Parameter p;
  p.name = name;
  p.stack = stack;
  p.rows = rows;
  p.cols = cols;
  p.uses = uses;
  p.trained = trained;
  return p;
}

class GradientSumTest : public testing::TestWithParam<std::pair<int64_t, int64_t>> {
 protected:
  std::vector<Parameter> table_ = {Make("embedding", 1, 5, 7, 2), Make("gain", 1, 1, 3, 1),
                                   Make("bias", 1, 1, 4, 1, false), Make("experts", 3, 2, 5, 1),
                                   Make("head", 1, 6, 3, 3)};
  std::unique_ptr<Backend> backend_ = MakeCpuBackend({});
  std::unique_ptr<Stream> stream_ = backend_->MakeStream();
  MemoryBlock memory_ = *MemoryBlock::Map(1 << 20);
  Rng rng_{7, RngPurpose::kTest, 3};

  // The gradient of element e of (parameter p, use u) in a micro-batch; sizes far apart, so that order shows.
  float Value(size_t p, int u, int64_t e, int64_t lane, int64_t wave) const {
    const uint64_t index = (((p * 4 + u) * 64 + e) * 16 + lane) * 16 + wave;
    return static_cast<float>(rng_.Normal(index) * std::pow(10.0, static_cast<double>(index * 2654435761u % 7)));
  }
  static float TreeOf(const std::vector<float>& v) {
    if (v.size() == 1) return v[0];
    size_t split = 1;
    while (split * 2 < v.size()) split *= 2;
    return TreeOf({v.begin(), v.begin() + split}) + TreeOf({v.begin() + split, v.end()});
  }
  // By hand: waves in order from +0, lanes by the tree, uses last.
  float Expected(size_t p, int64_t e, int64_t lanes, int64_t waves) const {
    float total = 0.0f;
    for (int u = 0; u < table_[p].uses; ++u) {
      std::vector<float> sums(lanes, 0.0f);
      for (int64_t l = 0; l < lanes; ++l) {
        for (int64_t w = 0; w < waves; ++w) sums[l] += Value(p, u, e, l, w);
      }
      total = u == 0 ? TreeOf(sums) : total + TreeOf(sums);
    }
    return total;
  }
  void AddMicroBatch(const GradientSet& set, int64_t lane, int64_t wave) const {
    for (size_t p = 0; p < table_.size(); ++p) {
      for (int u = 0; table_[p].trained && u < table_[p].uses; ++u) {
        float* values = set.of(p, u).as<float>();
        for (int64_t e = 0; e < table_[p].elements(); ++e) values[e] += Value(p, u, e, lane, wave);
      }
    }
  }
};

TEST_P(GradientSumTest, GivesTheDocumentedSumBitForBit) {
  const auto [lanes, waves] = GetParam();
  std::memset(memory_.data(), 0x7f, memory_.size_bytes());  // rubbish that a sum would show
  Arena arena(memory_.data(), memory_.size_bytes());
  GradientSum sum(*backend_, *stream_, arena, table_, lanes);
  for (int step = 0; step < 2; ++step) {  // the second step must not see the first
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const GradientSet& set = sum.BeginLane();
      for (int64_t wave = 0; wave < waves; ++wave) AddMicroBatch(set, lane, wave);
      sum.EndLane();
    }
    const GradientSet& total = sum.Finish();
    EXPECT_TRUE(total.views[2].empty());
    for (size_t p : {0, 1, 3, 4}) {
      for (int64_t e = 0; e < table_[p].elements(); ++e) {
        EXPECT_EQ(total.of(p).as<float>()[e], Expected(p, e, lanes, waves)) << table_[p].name << " " << e;
      }
    }
  }
}

// The order shows in these numbers: were it ignored, the test above could not fail.
TEST_F(GradientSumTest, OrderMatters) {
  int different = 0;
  for (int64_t e = 0; e < table_[0].elements(); ++e) {
    std::vector<float> tree;
    float chain = 0.0f;
    for (int64_t l = 0; l < 6; ++l) {
      tree.push_back(Value(0, 0, e, l, 0));
      chain += Value(0, 0, e, l, 0);
    }
    different += TreeOf(tree) != chain;
  }
  EXPECT_GT(different, 0);
}

INSTANTIATE_TEST_SUITE_P(LanesByWaves, GradientSumTest,
                         testing::Values(std::pair{1, 1}, std::pair{1, 4}, std::pair{2, 3}, std::pair{3, 2},
                                         std::pair{4, 1}, std::pair{4, 3}, std::pair{6, 2}),
                         [](const auto& info) { return absl::StrCat(info.param.first, "x", info.param.second); });

TEST_F(GradientSumTest, AccumulatorsStartAtPositiveZero) {
  std::memset(memory_.data(), 0x7f, memory_.size_bytes());  // rubbish that a sum would show
  Arena arena(memory_.data(), memory_.size_bytes());
  GradientSum sum(*backend_, *stream_, arena, table_, 1);
  const GradientSet& set = sum.BeginLane();
  float x = *set.of(0).as<float>();
  EXPECT_EQ(x, 0.0f);
  EXPECT_FALSE(std::signbit(x));
  *set.of(1).as<float>() += -0.0f;
  EXPECT_FALSE(std::signbit(*set.of(1).as<float>()));  // +0 + -0 = +0
}

}  // namespace
}  // namespace shoestring
