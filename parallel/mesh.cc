// Rank arithmetic, all of it.
#include "parallel/mesh.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"

namespace shoestring {
namespace {

// Stages that the schedule wants of each position.
int StagesPerPosition(const config::LayoutConfig& layout) {
  switch (layout.schedule_case()) {
    case config::LayoutConfig::kZbV:
    case config::LayoutConfig::kDualpipeV: return 2;
    case config::LayoutConfig::kInterleaved: return layout.interleaved().chunks();
    default: return 1;
  }
}

}  // namespace

StageOrder StageOrderOf(const config::LayoutConfig& layout) {
  switch (layout.schedule_case()) {
    case config::LayoutConfig::kZbV:
    case config::LayoutConfig::kDualpipeV: return StageOrder::kV;
    case config::LayoutConfig::kDualpipe: return StageOrder::kMirror;
    default: return StageOrder::kLoop;
  }
}

int RankGroup::IndexOf(Rank rank) const {
  const auto it = std::find(members.begin(), members.end(), rank);
  CHECK(it != members.end());
  return static_cast<int>(it - members.begin());
}

absl::StatusOr<Mesh> Mesh::Create(const config::LayoutConfig& layout) {
  Mesh mesh;
  mesh.pipeline_ranks_ = layout.pipeline_ranks();
  mesh.data_ranks_ = layout.data_ranks();
  mesh.expert_ranks_ = layout.expert_ranks();
  mesh.stages_ = layout.stages();
  mesh.stage_order_ = StageOrderOf(layout);
  if (mesh.pipeline_ranks_ < 1 || mesh.data_ranks_ < 1 || mesh.expert_ranks_ < 1) {
    return absl::InvalidArgumentError("layout: pipeline_ranks, data_ranks and expert_ranks must be at least 1");
  }
  if (int64_t{mesh.pipeline_ranks_} * mesh.data_ranks_ > (int64_t{1} << 30)) {
    return absl::InvalidArgumentError("layout: more than 2^30 ranks");
  }
  if (mesh.data_ranks_ % mesh.expert_ranks_ != 0) {
    return absl::InvalidArgumentError(absl::StrCat("layout: expert_ranks (", mesh.expert_ranks_,
                                                   ") does not divide data_ranks (", mesh.data_ranks_, ")"));
  }
  const int64_t wanted = int64_t{StagesPerPosition(layout)} * mesh.pipeline_ranks_;
  if (mesh.stages_ != wanted) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout: stages is ", mesh.stages_, ", but the schedule needs ", wanted));
  }
  return mesh;
}

Rank Mesh::RankAt(int position, int data_index) const {
  CHECK_GE(position, 0);
  CHECK_LT(position, pipeline_ranks_);
  CHECK_GE(data_index, 0);
  CHECK_LT(data_index, data_ranks_);
  return Rank(position * data_ranks_ + data_index);
}

int Mesh::PositionOf(Rank rank) const {
  CHECK_GE(rank.value, 0);
  CHECK_LT(rank.value, world_size());
  return rank.value / data_ranks_;
}

int Mesh::DataIndexOf(Rank rank) const {
  CHECK_GE(rank.value, 0);
  CHECK_LT(rank.value, world_size());
  return rank.value % data_ranks_;
}

RankGroup Mesh::PipelineGroup(Rank rank) const {
  RankGroup group{absl::StrCat("pipeline ", DataIndexOf(rank)), {}};
  for (int p = 0; p < pipeline_ranks_; ++p) group.members.push_back(RankAt(p, DataIndexOf(rank)));
  return group;
}

RankGroup Mesh::DataGroup(Rank rank) const {
  RankGroup group{absl::StrCat("data of position ", PositionOf(rank)), {}};
  for (int d = 0; d < data_ranks_; ++d) group.members.push_back(RankAt(PositionOf(rank), d));
  return group;
}

RankGroup Mesh::ExpertGroup(Rank rank) const {
  const int first = DataIndexOf(rank) - ExpertIndexOf(rank);
  RankGroup group{absl::StrCat("experts ", first / expert_ranks_, " of position ", PositionOf(rank)), {}};
  for (int e = 0; e < expert_ranks_; ++e) group.members.push_back(RankAt(PositionOf(rank), first + e));
  return group;
}

RankGroup Mesh::ExpertDataGroup(Rank rank) const {
  RankGroup group{absl::StrCat("expert data ", ExpertIndexOf(rank), " of position ", PositionOf(rank)), {}};
  for (int d = ExpertIndexOf(rank); d < data_ranks_; d += expert_ranks_) {
    group.members.push_back(RankAt(PositionOf(rank), d));
  }
  return group;
}

RankGroup Mesh::ReplicaGroup(Rank rank) const {
  const int position = PositionOf(rank);
  const int mirror = directions() == 2 ? pipeline_ranks_ - 1 - position : position;
  RankGroup group{absl::StrCat("replicas of position ", std::min(position, mirror)), {}};
  for (int p : {std::min(position, mirror), std::max(position, mirror)}) {
    if (p == mirror && mirror == position && !group.members.empty()) break;
    for (int d = 0; d < data_ranks_; ++d) group.members.push_back(RankAt(p, d));
  }
  return group;
}

RankGroup Mesh::ExpertReplicaGroup(Rank rank) const {
  const RankGroup replicas = ReplicaGroup(rank);
  RankGroup group{absl::StrCat("experts ", ExpertIndexOf(rank), ", ", replicas.name), {}};
  for (Rank member : replicas.members) {
    if (ExpertIndexOf(member) == ExpertIndexOf(rank)) group.members.push_back(member);
  }
  return group;
}

RankGroup Mesh::EndsGroup(Rank rank) const {
  const int first = StagePosition(StageId(0), Direction(0));
  const int last = StagePosition(StageId(stages_ - 1), Direction(0));
  RankGroup group{"both ends", {}};
  const int position = PositionOf(rank);
  if (first == last || directions() == 2 || (position != first && position != last)) return group;
  for (int p : {first, last}) {
    for (int d = 0; d < data_ranks_; ++d) group.members.push_back(RankAt(p, d));
  }
  return group;
}

int Mesh::StagePosition(StageId stage, Direction direction) const {
  CHECK_GE(stage.value, 0);
  CHECK_LT(stage.value, stages_);
  CHECK_LT(direction.value, directions());
  switch (stage_order_) {
    case StageOrder::kLoop: return stage.value % pipeline_ranks_;
    case StageOrder::kV: return std::min(stage.value, 2 * pipeline_ranks_ - 1 - stage.value);
    case StageOrder::kMirror: return direction.value == 0 ? stage.value : pipeline_ranks_ - 1 - stage.value;
  }
  return 0;
}

std::vector<StageId> Mesh::StagesAt(int position) const {
  std::vector<StageId> stages;
  for (int s = 0; s < stages_; ++s) {
    bool here = false;
    for (int d = 0; d < directions(); ++d) here |= StagePosition(StageId(s), Direction(d)) == position;
    if (here) stages.push_back(StageId(s));
  }
  return stages;
}

IndexRange Mesh::ExpertsOf(Rank rank, int experts) const {
  CHECK_EQ(experts % expert_ranks_, 0);
  const int count = experts / expert_ranks_;
  return {int64_t{ExpertIndexOf(rank)} * count, count};
}

ExpertId Mesh::FirstExpertOf(Rank rank, int experts) const {
  return ExpertId(static_cast<int>(ExpertsOf(rank, experts).first));
}

IndexRange Mesh::LanesOf(int data_index, Direction direction, int64_t lanes) const {
  const int64_t owners = int64_t{data_ranks_} * directions();
  CHECK_EQ(lanes % owners, 0);
  CHECK_LT(data_index, data_ranks_);
  CHECK_LT(direction.value, directions());
  const int64_t count = lanes / owners;
  return {(int64_t{direction.value} * data_ranks_ + data_index) * count, count};
}

std::string Mesh::ToString() const {
  std::string text = absl::StrCat(pipeline_ranks_, " pipeline x ", data_ranks_, " data ranks, experts over ",
                                  expert_ranks_, "; ", stages_, stages_ == 1 ? " stage\n" : " stages\n");
  const auto append_number = [](std::string* out, auto id) { absl::StrAppend(out, id.value); };
  for (int p = 0; p < pipeline_ranks_; ++p) {
    absl::StrAppend(&text, "position ", p, ": ranks ", RankAt(p, 0).value);
    if (data_ranks_ > 1) absl::StrAppend(&text, "..", RankAt(p, data_ranks_ - 1).value);
    absl::StrAppend(&text, ", stages ", absl::StrJoin(StagesAt(p), " ", append_number), "\n");
  }
  return text;
}

}  // namespace shoestring
