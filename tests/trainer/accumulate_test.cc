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

std::string TextOf(const LaneTree& tree, int node) {
  const LaneTree::Node& n = tree.node(node);
  if (n.left < 0) return absl::StrCat(n.leaves.first);
  return absl::StrCat("(", TextOf(tree, n.left), "+", TextOf(tree, n.right), ")");
}

TEST(LaneTreeTest, IsTheTreeOfTheDefinition) {
  EXPECT_EQ(TreeText(0, 6), "(((0+1)+(2+3))+(4+5))");
  for (int n = 1; n <= 70; ++n) {
    const LaneTree tree(n);
    EXPECT_EQ(TextOf(tree, tree.root()), TreeText(0, n));
    for (int i = 0; i < n; ++i) EXPECT_EQ(tree.node(tree.leaf(i)).leaves, (IndexRange{i, 1}));
  }
}

// The largest nodes inside a run cover it, in order, and no parent of one lies inside.
TEST(LaneTreeTest, RunsAreCutIntoLargestNodes) {
  for (int n = 1; n <= 13; ++n) {
    const LaneTree tree(n);
    for (int first = 0; first < n; ++first) {
      for (int count = 1; first + count <= n; ++count) {
        int64_t next = first;
        for (int node : tree.Within({first, count})) {
          EXPECT_EQ(tree.node(node).leaves.first, next);
          next += tree.node(node).leaves.count;
          if (node == tree.root()) continue;
          const IndexRange up = tree.node(tree.node(node).parent).leaves;
          EXPECT_TRUE(up.first < first || up.first + up.count > first + count);
        }
        EXPECT_EQ(next, first + count);
      }
    }
  }
}

// In any order of leaves, in blocks; the sums are those of the definition, bit for bit.
TEST(LaneSumsTest, SumsNodesInWhateverOrderLeavesCome) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  const MemoryBlock memory = *MemoryBlock::Map(1 << 20);
  const auto value = [](int64_t leaf) { return static_cast<float>(std::pow(10.0, leaf * 7 % 5) / 3.0); };
  const LaneTree tree(7);
  for (const std::vector<std::vector<int64_t>>& blocks :
       {std::vector<std::vector<int64_t>>{{0}, {1}, {2}, {3}, {4}, {5}, {6}}, {{6, 5}, {0, 3, 2}, {4}, {1}}}) {
    Arena arena(memory.data(), memory.size_bytes());
    LaneSums sums(*backend, *stream, arena, tree, blocks, 1);
    EXPECT_EQ(sums.accumulators(), blocks.size() == 7 ? 3 : 5);
    for (int step = 0; step < 2; ++step) {  // the second must not see the first
      sums.Start();
      for (const std::vector<int64_t>& block : blocks) {
        for (int64_t leaf : block) sums.memory(sums.Open(leaf)).as<float>()[0] += value(leaf);
        for (int64_t leaf : block) sums.Close(leaf);
      }
      const auto v = [&](int leaf) { return value(leaf); };
      EXPECT_EQ(sums.memory(sums.Sum(tree.root())).as<float>()[0],
                ((v(0) + v(1)) + (v(2) + v(3))) + ((v(4) + v(5)) + v(6)));
    }
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

}  // namespace
}  // namespace shoestring
