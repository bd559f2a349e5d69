// The mesh of ranks: who sits where in the pipeline, who shares data and experts with whom; nothing else does rank
// arithmetic.
#pragma once

#include <compare>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "configs/schema/parallel.pb.h"

namespace shoestring {

// Numbers that must not be taken for one another.
template <typename Tag>
struct StrongId {
  int value = 0;
  constexpr StrongId() = default;
  constexpr explicit StrongId(int value) : value(value) {}
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  friend std::ostream& operator<<(std::ostream& out, StrongId id) { return out << id.value; }
};
using Rank = StrongId<struct RankTag>;            // of the world
using StageId = StrongId<struct StageTag>;        // of the model, in order of layers
using ExpertId = StrongId<struct ExpertTag>;      // of a layer
using Direction = StrongId<struct DirectionTag>;  // 0, or 1 for the mirrored half of a bidirectional pipeline

// A half-open run of equal things.
struct IndexRange {
  int64_t first = 0;
  int64_t count = 0;
  friend bool operator==(const IndexRange&, const IndexRange&) = default;
};

// Ranks that communicate as one. `members` is in order; the place of a rank in it is its index in the group.
struct RankGroup {
  std::string name;  // "data of pipeline position 1"
  std::vector<Rank> members;

  int size() const { return static_cast<int>(members.size()); }
  int IndexOf(Rank rank) const;  // aborts if the rank is no member
};

// Which pipeline position holds a stage.
enum class StageOrder {
  kLoop,    // stage s at position s mod P (one stage a rank when S = P)
  kV,       // down the positions and back: s, then 2P - 1 - s
  kMirror,  // DualPipe: position p holds stage p of direction 0 and stage P - 1 - p, where direction 1 meets it
};

StageOrder StageOrderOf(const config::LayoutConfig& layout);

// Ranks are numbered position-major: rank = position * data_ranks + data index, so that the ranks of an expert group
// are neighbours and fill whole machines.
class Mesh {
 public:
  // INVALID_ARGUMENT if the counts do not divide as docs/numerics.md ("Layout and lanes") says, or `stages` does not
  // fit the schedule.
  static absl::StatusOr<Mesh> Create(const config::LayoutConfig& layout);

  int world_size() const { return pipeline_ranks_ * data_ranks_; }
  int pipeline_ranks() const { return pipeline_ranks_; }
  int data_ranks() const { return data_ranks_; }
  int expert_ranks() const { return expert_ranks_; }
  int stages() const { return stages_; }
  int directions() const { return stage_order_ == StageOrder::kMirror ? 2 : 1; }
  StageOrder stage_order() const { return stage_order_; }

  Rank RankAt(int position, int data_index) const;
  int PositionOf(Rank rank) const;
  int DataIndexOf(Rank rank) const;
  int ExpertIndexOf(Rank rank) const { return DataIndexOf(rank) % expert_ranks_; }

  RankGroup PipelineGroup(Rank rank) const;    // same data index, all positions
  RankGroup DataGroup(Rank rank) const;        // same position; dense gradients
  RankGroup ExpertGroup(Rank rank) const;      // share the experts of a layer; dispatch and combine
  RankGroup ExpertDataGroup(Rank rank) const;  // same position, hold the same experts
  // Hold the same stages: the data group, and under DualPipe that of the mirrored position, too; dense gradients.
  RankGroup ReplicaGroup(Rank rank) const;
  RankGroup ExpertReplicaGroup(Rank rank) const;  // hold the same stages and experts; expert gradients
  // Hold the first or the last stage: gradients of what both use (the embedding, with MTP). Empty where the same ranks
  // hold both, or `rank` holds neither.
  RankGroup EndsGroup(Rank rank) const;

  int StagePosition(StageId stage, Direction direction) const;
  std::vector<StageId> StagesAt(int position) const;  // ascending
  // The experts of a rank: equal neighbouring runs in the order of the expert group. `experts` must divide.
  IndexRange ExpertsOf(Rank rank, int experts) const;
  ExpertId FirstExpertOf(Rank rank, int experts) const;
  // The lanes of a pipeline replica and direction, lanes being numbered direction-major. `lanes` must divide.
  IndexRange LanesOf(int data_index, Direction direction, int64_t lanes) const;

  // The grid, one line a pipeline position: ranks, and the stages they hold.
  std::string ToString() const;
  friend bool operator==(const Mesh&, const Mesh&) = default;

 private:
  Mesh() = default;
  int pipeline_ranks_ = 1;
  int data_ranks_ = 1;
  int expert_ranks_ = 1;
  int stages_ = 1;
  StageOrder stage_order_ = StageOrder::kLoop;
};

}  // namespace shoestring
