// Canonical sums: the order in which weight gradients and losses of micro-batches are added, fixed by the config and
// never by the layout (docs/numerics.md, "Order of sums").
//
// Inside a lane in wave order, into accumulators that start at +0; lanes by a fixed binary tree, in which a group of n
// lanes splits at the largest power of two below n; uses of one parameter last, in the order of use.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "trainer/params.h"

namespace shoestring {

// Folds items as they arrive, as a binary counter does: after n items the stack holds one sum for each set bit of n,
// the largest group first.
class TreeFold {
 public:
  // merge(left, right) adds the item on the right to the one on the left, which stays.
  template <typename Merge>
  void Push(int item, Merge merge) {
    CHECK_LT(depth_, kMaxDepth);
    stack_[depth_++] = {item, 1};
    while (depth_ >= 2 && stack_[depth_ - 2].leaves == stack_[depth_ - 1].leaves) MergeTop(merge);
  }
  // The sum of all items; the fold is empty again.
  template <typename Merge>
  int Finish(Merge merge) {
    CHECK_GT(depth_, 0);
    while (depth_ >= 2) MergeTop(merge);
    depth_ = 0;
    return stack_[0].item;
  }

 private:
  static constexpr int kMaxDepth = 64;
  struct Group {
    int item = 0;
    int64_t leaves = 0;
  };
  template <typename Merge>
  void MergeTop(Merge& merge) {
    merge(stack_[depth_ - 2].item, stack_[depth_ - 1].item);
    stack_[depth_ - 2].leaves += stack_[depth_ - 1].leaves;
    --depth_;
  }

  std::array<Group, kMaxDepth> stack_;
  int depth_ = 0;
};

// Items that the fold of so many lanes holds at most, the lane under way included: accumulator sets to allocate.
int AccumulatorSets(int64_t lanes);

// Sums values[lane * waves + wave] in canonical order. For losses; needs lanes >= 1, waves >= 1.
double CanonicalSum(const double* values, int64_t lanes, int64_t waves);

// FP32 accumulators of every trained parameter, one for each use, in one piece of memory.
struct GradientSet {
  View whole;                            // [1, n] f32, padding between parameters included
  std::vector<std::vector<View>> views;  // [parameter of the table][use]: [stack * rows, cols]; none if not trained

  const View& of(size_t parameter, int use = 0) const { return views[parameter][use]; }
};
GradientSet AllocateGradientSet(Arena& arena, const std::vector<Parameter>& table);

// The gradient of one step. Lanes come one after the other, each BeginLane, its waves, EndLane; then Finish.
class GradientSum {
 public:
  // Allocates AccumulatorSets(lanes) sets. References must outlive this object.
  GradientSum(Backend& backend, Stream& stream, Arena& arena, const std::vector<Parameter>& table, int64_t lanes);

  // Accumulators of the lane, zeroed; weight gradients are added to them.
  const GradientSet& BeginLane();
  void EndLane();
  // After `lanes` lanes: the whole gradient, uses added into use 0. Valid until the next BeginLane.
  const GradientSet& Finish();

 private:
  void Merge(int left, int right);
  void AddUses(const GradientSet& set);

  Backend& backend_;
  Stream& stream_;
  const int64_t lanes_;
  std::vector<GradientSet> sets_;
  std::vector<int> free_;
  TreeFold fold_;
  int current_ = -1;
  int64_t lanes_done_ = 0;
};

}  // namespace shoestring
