// The canonical tree over accumulators and over losses.
#include "trainer/accumulate.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace shoestring {
namespace {

int64_t LeftLeaves(int64_t leaves) { return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(leaves - 1))); }

double LaneSum(const double* values, int64_t waves) {
  double sum = 0.0;
  for (int64_t wave = 0; wave < waves; ++wave) sum += values[wave];
  return sum;
}

}  // namespace

double CanonicalSum(const double* values, int64_t lanes, int64_t waves) {
  CHECK_GE(lanes, 1);
  if (lanes == 1) return LaneSum(values, waves);
  const int64_t left = LeftLeaves(lanes);
  return CanonicalSum(values, left, waves) + CanonicalSum(values + left * waves, lanes - left, waves);
}

LaneTree::LaneTree(int64_t leaves) : leaves_(leaves) {
  CHECK_GE(leaves, 1);
  nodes_.reserve(2 * leaves - 1);
  Add({0, leaves}, -1);
}

int LaneTree::Add(IndexRange leaves, int parent) {
  const int index = static_cast<int>(nodes_.size());
  nodes_.push_back({leaves, parent});
  if (leaves.count == 1) {
    leaves_[leaves.first] = index;
    return index;
  }
  const int64_t left_count = LeftLeaves(leaves.count);
  const int left = Add({leaves.first, left_count}, index);
  const int right = Add({leaves.first + left_count, leaves.count - left_count}, index);
  nodes_[index].left = left;
  nodes_[index].right = right;
  nodes_[left].sibling = right;
  nodes_[right].sibling = left;
  return index;
}

std::vector<int> LaneTree::Within(const IndexRange& leaves) const {
  std::vector<int> found;
  Collect(root(), leaves, found);
  return found;
}

void LaneTree::Collect(int index, const IndexRange& leaves, std::vector<int>& found) const {
  const Node& node = nodes_[index];
  const int64_t end = leaves.first + leaves.count, node_end = node.leaves.first + node.leaves.count;
  if (node_end <= leaves.first || node.leaves.first >= end) return;
  if (node.leaves.first >= leaves.first && node_end <= end) {
    found.push_back(index);
    return;
  }
  Collect(node.left, leaves, found);
  Collect(node.right, leaves, found);
}

LaneSums::LaneSums(Backend& backend, Stream& stream, Arena& arena, const LaneTree& tree,
                   const std::vector<std::vector<int64_t>>& blocks, int64_t elements)
    : backend_(backend), stream_(stream), tree_(tree), accumulator_(tree.size(), -1), complete_(tree.size(), false) {
  const int most = MostAtOnce(blocks);
  for (int i = 0; i < most; ++i) {
    memory_.push_back(arena.Allocate(Purpose::kGradients, "gradient accumulators", DType::kF32, 1, elements));
  }
  free_.reserve(most);
  Start();
}

// Marks the node as summed, and every node above it whose other half is there, too; merge(into, left, right) adds.
template <typename Merge>
void LaneSums::Complete(int node, Merge merge) {
  complete_[node] = true;
  for (int up = tree_.node(node).parent; up >= 0; up = tree_.node(up).parent) {
    const LaneTree::Node& parent = tree_.node(up);
    if (!complete_[parent.left] || !complete_[parent.right]) return;
    merge(up, parent.left, parent.right);
    complete_[up] = true;
  }
}

int LaneSums::MostAtOnce(const std::vector<std::vector<int64_t>>& blocks) {
  int held = 0, most = 0;
  for (const std::vector<int64_t>& block : blocks) {
    held += static_cast<int>(block.size());
    most = std::max(most, held);
    for (int64_t leaf : block) {
      Complete(tree_.leaf(leaf), [&](int, int, int) { --held; });
    }
  }
  return most;
}

void LaneSums::Start() {
  std::fill(accumulator_.begin(), accumulator_.end(), -1);
  std::fill(complete_.begin(), complete_.end(), false);
  free_.clear();
  for (int i = accumulators() - 1; i >= 0; --i) free_.push_back(i);
}

int LaneSums::Open(int64_t leaf) {
  CHECK(!free_.empty());
  const int accumulator = free_.back();
  free_.pop_back();
  CHECK_EQ(accumulator_[tree_.leaf(leaf)], -1);
  accumulator_[tree_.leaf(leaf)] = accumulator;
  backend_.Zero(stream_, memory_[accumulator]);
  return accumulator;
}

void LaneSums::Close(int64_t leaf) {
  CHECK_GE(accumulator_[tree_.leaf(leaf)], 0);
  Complete(tree_.leaf(leaf), [this](int into, int left, int right) {
    const View sum = memory_[accumulator_[left]];
    backend_.Add(stream_, sum, memory_[accumulator_[right]], sum);
    free_.push_back(accumulator_[right]);
    accumulator_[into] = accumulator_[left];
  });
}

int LaneSums::Sum(int node) const {
  CHECK(complete_[node]);
  return accumulator_[node];
}

GradientSet AllocateGradientSet(Arena& arena, const std::vector<Parameter>& table) {
  int64_t total = 0;
  for (const Parameter& p : table) total += p.trained ? p.uses * FlatElements(p.elements()) : 0;
  GradientSet set;
  set.whole = arena.Allocate(Purpose::kGradients, "gradient accumulators", DType::kF32, 1, total);
  int64_t next = 0;
  for (const Parameter& p : table) {
    std::vector<View>& uses = set.views.emplace_back();
    for (int use = 0; p.trained && use < p.uses; ++use) {
      uses.push_back(set.whole.Columns(next, p.elements()).Reshape(p.stack * p.rows, p.cols));
      next += FlatElements(p.elements());
    }
  }
  return set;
}

void AddUses(Backend& backend, Stream& stream, const GradientSet& set) {
  for (const std::vector<View>& uses : set.views) {
    for (size_t use = 1; use < uses.size(); ++use) backend.Add(stream, uses[0], uses[use], uses[0]);
  }
}

}  // namespace shoestring
