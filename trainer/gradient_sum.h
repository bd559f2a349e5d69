// The gradient of a step: accumulators of this rank's lanes, and their sum over all ranks in canonical order
// (docs/numerics.md, "Order of sums").
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "trainer/accumulate.h"
#include "trainer/held.h"
#include "trainer/lanes.h"
#include "trainer/rank_links.h"

namespace shoestring {

// [parameter held][use]: views of one lane's accumulators, as StageModel binds them; absent ones are empty.
using GradientViews = std::vector<std::vector<View>>;

// A step's gradient as this rank has it, one entry a parameter held, f32 [1, n]; empty where there is nothing.
struct Gradient {
  std::vector<View> reduced;  // HeldParameter::reduced
  std::vector<View> kept;     // HeldParameter::kept
};

class GradientSum {
 public:
  // Takes all memory. `lanes` L, `expert_lanes` G (1 without experts). References must outlive this object.
  GradientSum(Backend& backend, Stream& stream, Arena& arena, const HeldTable& held, const RankLinks& links,
              int64_t lanes, int64_t expert_lanes);
  ~GradientSum();

  // Begins a step.
  void Start();
  // The accumulators for a block of lanes of a stage, zeroed. `share` is that of the stage's direction.
  void OpenBlock(StageId stage, const LaneShare& share, int64_t block);
  // Of a lane in an open block; dense parameters only.
  const GradientViews& DenseViews(StageId stage, int64_t lane) const;
  // Of the `sum`-th group of expert lanes of an open block; experts only.
  const GradientViews& ExpertViews(StageId stage, const LaneShare& share, int64_t block, int64_t sum) const;
  void CloseBlock(StageId stage, const LaneShare& share, int64_t block);

  // When all blocks of the stage are closed: its sums begin to travel, while other stages still compute. Groups start
  // in the order of HeldTable::groups on every rank, whatever the order of the stages. Errors: a communicator's.
  absl::Status StageDone(StageId stage);
  // After the last stage: finishes the sums over ranks. Valid until the next Start.
  absl::Status Reduce();
  const Gradient& gradient() const { return gradient_; }

 private:
  // One tree of a stage: its lanes, or its groups of expert lanes.
  struct Sums {
    std::unique_ptr<LaneSums> lanes;
    std::vector<GradientViews> views;  // of each accumulator
    std::map<int64_t, int> open;       // leaf to accumulator
  };
  struct StageSums {
    Sums dense;
    Sums experts;
  };
  // What one rank of a group contributes to a section: nodes of the tree, in order.
  struct Exchange {
    std::vector<std::vector<int>> nodes;      // of each rank of the group
    std::vector<std::vector<View>> received;  // of each rank and node: my part; empty of this rank itself
    size_t rounds = 0;
  };

  void MakeSums(Arena& arena, const HeldStage& stage, bool experts, Sums& sums);
  GradientViews ViewsOf(const HeldStage& stage, bool experts, View memory) const;
  void MakeExchange(Arena& arena, const SharingGroup& group, const GradientSection& section);
  std::vector<int> Contribution(const SharingGroup& group, const GradientSection& section, Rank rank) const;
  const LaneTree& TreeOf(const SharingGroup& group) const {
    return group.kind == SharingGroup::Ranks::kExpertReplicas ? expert_tree_ : lane_tree_;
  }
  View OwnNode(const SharingGroup& group, const GradientSection& section, int node) const;

  bool IsDone(const SharingGroup& group) const;
  absl::Status StartTravel(const SharingGroup& group, size_t index);
  absl::Status AddTravel(const SharingGroup& group, const GradientSection& section, const Exchange& exchange);
  absl::Status ReduceGroup(const SharingGroup& group);
  View Fold(const SharingGroup& group, const GradientSection& section, const Exchange& exchange, int node);
  absl::StatusOr<View> GatherWhole(const SharingGroup& group, size_t index, View mine);
  void SetGradient(const SharingGroup& group, View mine, View whole);
  int IndexIn(const SharingGroup& group) const { return group.ranks.IndexOf(links_.rank); }

  Backend& backend_;
  Stream& stream_;
  const HeldTable& held_;
  const RankLinks& links_;
  const int64_t lanes_;
  const int64_t expert_lanes_;
  const LaneTree lane_tree_;
  const LaneTree expert_tree_;
  std::map<StageId, StageSums> stages_;
  std::vector<std::vector<Exchange>> exchanges_;  // of each group and section
  std::vector<View> gathered_;                    // of each group: room for the whole, where no accumulator has it
  std::map<StageId, bool> done_;                  // stages held: all their blocks are closed
  size_t started_ = 0;                            // groups whose sums travel
  std::vector<Ticket> tickets_;                   // of each group
  Gradient gradient_;
};

}  // namespace shoestring
