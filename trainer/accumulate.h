// Canonical sums: the order in which weight gradients and losses of micro-batches are added, fixed by the config and
// never by the layout (docs/numerics.md, "Order of sums").
//
// Inside a lane in wave order, into accumulators that start at +0; lanes by a fixed binary tree, in which a group of n
// lanes splits at the largest power of two below n; uses of one parameter last, in the order of use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/mesh.h"
#include "trainer/params.h"

namespace shoestring {

// The tree over n leaves.
class LaneTree {
 public:
  struct Node {
    IndexRange leaves;
    int parent = -1;   // -1: this is the root
    int sibling = -1;  // of the same parent
    int left = -1;     // -1: a leaf
    int right = -1;
  };
  explicit LaneTree(int64_t leaves);

  const Node& node(int index) const { return nodes_[index]; }
  int size() const { return static_cast<int>(nodes_.size()); }
  int root() const { return 0; }
  int leaf(int64_t index) const { return leaves_[index]; }
  // The largest nodes that lie in a run of leaves, in order: what a rank that has these leaves can sum alone.
  std::vector<int> Within(const IndexRange& leaves) const;

 private:
  int Add(IndexRange leaves, int parent);
  void Collect(int node, const IndexRange& leaves, std::vector<int>& found) const;

  std::vector<Node> nodes_;
  std::vector<int> leaves_;
};

// Sums values[lane * waves + wave] in canonical order. For losses; needs lanes >= 1, waves >= 1.
double CanonicalSum(const double* values, int64_t lanes, int64_t waves);

// Accumulators of this rank's leaves of a tree. Leaves are opened and closed in blocks, in an order that is known
// beforehand, so that memory is taken once; a node is summed as soon as both its halves are there.
class LaneSums {
 public:
  // `blocks`: the leaves of each block, in order of blocks. An accumulator has `elements` f32. References must outlive
  // this object.
  LaneSums(Backend& backend, Stream& stream, Arena& arena, const LaneTree& tree,
           const std::vector<std::vector<int64_t>>& blocks, int64_t elements);

  int accumulators() const { return static_cast<int>(memory_.size()); }
  View memory(int accumulator) const { return memory_[accumulator]; }  // [1, elements]

  // Forgets the last step's sums.
  void Start();
  // The accumulator of the leaf, zeroed.
  int Open(int64_t leaf);
  void Close(int64_t leaf);
  // When all leaves are closed: the accumulator of a node of LaneTree::Within.
  int Sum(int node) const;

 private:
  int Take(int node);
  int MostAtOnce(const std::vector<std::vector<int64_t>>& blocks);
  template <typename Merge>
  void Complete(int node, Merge merge);

  Backend& backend_;
  Stream& stream_;
  const LaneTree& tree_;
  std::vector<View> memory_;
  std::vector<int> free_;
  std::vector<int> accumulator_;  // of each node; -1: none
  std::vector<bool> complete_;    // of each node
};

// FP32 accumulators of every trained parameter of a table, one for each use, in one piece of memory.
struct GradientSet {
  View whole;                            // [1, n] f32, padding between parameters included
  std::vector<std::vector<View>> views;  // [parameter of the table][use]: [stack * rows, cols]; none if not trained

  const View& of(size_t parameter, int use = 0) const { return views[parameter][use]; }
};
GradientSet AllocateGradientSet(Arena& arena, const std::vector<Parameter>& table);
// Adds the uses of each parameter into its use 0, in order.
void AddUses(Backend& backend, Stream& stream, const GradientSet& set);

// Flat buffers of several tensors: each starts at a multiple of 64 bytes, whatever its dtype.
constexpr int64_t kFlatAlignElements = 32;
constexpr int64_t FlatElements(int64_t elements) {
  return (elements + kFlatAlignElements - 1) / kFlatAlignElements * kFlatAlignElements;
}

}  // namespace shoestring
