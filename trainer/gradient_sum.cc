// Accumulate here, send each rank its part of every node, finish the tree there.
#include "trainer/gradient_sum.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

// A view of n elements as a communicator sends them: one a row.
View AsRows(View x) { return x.Reshape(x.elements(), 1); }

bool IsExperts(const SharingGroup& group) { return group.kind == SharingGroup::Ranks::kExpertReplicas; }

}  // namespace

GradientSum::GradientSum(Backend& backend, Stream& stream, Arena& arena, const HeldTable& held, const RankLinks& links,
                         int64_t lanes, int64_t expert_lanes)
    : backend_(backend),
      stream_(stream),
      held_(held),
      links_(links),
      lanes_(lanes),
      expert_lanes_(expert_lanes),
      lane_tree_(lanes),
      expert_tree_(lanes / expert_lanes) {
  for (const HeldStage& stage : held.stages()) {
    StageSums& sums = stages_[stage.id];
    done_[stage.id] = false;
    MakeSums(arena, stage, /*experts=*/false, sums.dense);
    if (stage.expert_elements > 0) MakeSums(arena, stage, /*experts=*/true, sums.experts);
  }
  for (const SharingGroup& group : held.groups()) {
    exchanges_.emplace_back();
    for (const GradientSection& section : group.sections) MakeExchange(arena, group, section);
    View room;
    if (group.ranks.size() > 1 && !group.sharded && group.sections[0].offset < 0) {
      room = arena.Allocate(Purpose::kGradients, "gathered gradients", DType::kF32, 1, group.elements);
    }
    gathered_.push_back(room);
  }
  tickets_.resize(held.groups().size());
  gradient_.reduced.resize(held.held().size());
  gradient_.kept.resize(held.held().size());
}

GradientSum::~GradientSum() = default;

void GradientSum::MakeSums(Arena& arena, const HeldStage& stage, bool experts, Sums& sums) {
  const LaneShare share =
      MakeLaneShare(links_.mesh, links_.rank, links_.DirectionOf(stage.id), lanes_, expert_lanes_, /*waves=*/1);
  std::vector<std::vector<int64_t>> blocks;
  for (int64_t b = 0; b < share.blocks(); ++b) {
    std::vector<int64_t>& block = blocks.emplace_back();
    if (experts) {
      for (int64_t j = 0; j < share.sums(); ++j) block.push_back(share.ExpertGroup(b, j));
    } else {
      for (int64_t i = 0; i < share.block; ++i) block.push_back(share.lanes.first + b * share.block + i);
    }
  }
  sums.lanes = std::make_unique<LaneSums>(backend_, stream_, arena, experts ? expert_tree_ : lane_tree_, blocks,
                                          experts ? stage.expert_elements : stage.dense_elements);
  for (int i = 0; i < sums.lanes->accumulators(); ++i) {
    sums.views.push_back(ViewsOf(stage, experts, sums.lanes->memory(i)));
  }
}

GradientViews GradientSum::ViewsOf(const HeldStage& stage, bool experts, View memory) const {
  GradientViews views(held_.parameters().size());
  for (size_t i = 0; i < views.size(); ++i) views[i].resize(held_.parameters()[i].uses);
  for (const SharingGroup& group : held_.groups()) {
    if (IsExperts(group) != experts) continue;
    for (const GradientSection& section : group.sections) {
      if (section.stage != stage.id) continue;
      for (size_t i = 0; i < section.members.size(); ++i) {
        const Parameter& p = held_.parameters()[section.members[i]];
        views[section.members[i]][section.use] =
            memory.Columns(section.offset + section.starts[i], p.elements()).Reshape(p.stack * p.rows, p.cols);
      }
    }
  }
  return views;
}

// The nodes that `rank` can sum of the section's lanes alone.
std::vector<int> GradientSum::Contribution(const SharingGroup& group, const GradientSection& section, Rank rank) const {
  std::vector<int> nodes;
  for (int d = 0; d < links_.mesh.directions(); ++d) {
    if (links_.mesh.StagePosition(section.stage, Direction(d)) != links_.mesh.PositionOf(rank)) continue;
    const LaneShare share = MakeLaneShare(links_.mesh, rank, Direction(d), lanes_, expert_lanes_, /*waves=*/1);
    IndexRange leaves = share.lanes;
    if (IsExperts(group)) leaves = {share.neighbours.first / expert_lanes_, share.neighbours.count / expert_lanes_};
    const std::vector<int> more = TreeOf(group).Within(leaves);
    nodes.insert(nodes.end(), more.begin(), more.end());
  }
  return nodes;
}

void GradientSum::MakeExchange(Arena& arena, const SharingGroup& group, const GradientSection& section) {
  Exchange& exchange = exchanges_.back().emplace_back();
  const int me = IndexIn(group);
  const int64_t mine = section.boundaries[me + 1] - section.boundaries[me];
  for (int j = 0; j < group.ranks.size(); ++j) {
    exchange.nodes.push_back(Contribution(group, section, group.ranks.members[j]));
    exchange.rounds = std::max(exchange.rounds, exchange.nodes.back().size());
    std::vector<View>& received = exchange.received.emplace_back();
    if (j == me) continue;
    for (size_t i = 0; i < exchange.nodes.back().size(); ++i) {
      received.push_back(arena.Allocate(Purpose::kGradients, "received gradients", DType::kF32, 1, mine));
    }
  }
}

void GradientSum::Start() {
  for (auto& [id, done] : done_) done = false;
  started_ = 0;
  for (auto& [id, stage] : stages_) {
    for (Sums* sums : {&stage.dense, &stage.experts}) {
      if (sums->lanes != nullptr) sums->lanes->Start();
    }
  }
}

void GradientSum::OpenBlock(StageId stage, const LaneShare& share, int64_t block) {
  StageSums& sums = stages_.at(stage);
  for (int64_t i = 0; i < share.block; ++i) {
    const int64_t lane = share.lanes.first + block * share.block + i;
    sums.dense.open[lane] = sums.dense.lanes->Open(lane);
  }
  for (int64_t j = 0; sums.experts.lanes != nullptr && j < share.sums(); ++j) {
    const int64_t leaf = share.ExpertGroup(block, j);
    sums.experts.open[leaf] = sums.experts.lanes->Open(leaf);
  }
}

const GradientViews& GradientSum::DenseViews(StageId stage, int64_t lane) const {
  const Sums& sums = stages_.at(stage).dense;
  return sums.views[sums.open.at(lane)];
}

const GradientViews& GradientSum::ExpertViews(StageId stage, const LaneShare& share, int64_t block, int64_t sum) const {
  const Sums& sums = stages_.at(stage).experts;
  return sums.views[sums.open.at(share.ExpertGroup(block, sum))];
}

void GradientSum::CloseBlock(StageId stage, const LaneShare& share, int64_t block) {
  StageSums& sums = stages_.at(stage);
  for (int64_t i = 0; i < share.block; ++i) sums.dense.lanes->Close(share.lanes.first + block * share.block + i);
  for (int64_t j = 0; sums.experts.lanes != nullptr && j < share.sums(); ++j) {
    sums.experts.lanes->Close(share.ExpertGroup(block, j));
  }
}

bool GradientSum::IsDone(const SharingGroup& group) const {
  return std::all_of(group.sections.begin(), group.sections.end(),
                     [this](const GradientSection& section) { return section.offset < 0 || done_.at(section.stage); });
}

absl::Status GradientSum::StageDone(StageId stage) {
  done_.at(stage) = true;
  while (started_ < held_.groups().size() && IsDone(held_.groups()[started_])) {
    RETURN_IF_ERROR(StartTravel(held_.groups()[started_], started_));
    ++started_;
  }
  return absl::OkStatus();
}

absl::Status GradientSum::Reduce() {
  CHECK_EQ(started_, held_.groups().size());
  for (const SharingGroup& group : held_.groups()) RETURN_IF_ERROR(ReduceGroup(group));
  return absl::OkStatus();
}

// This rank's sum of the section at a node that it summed alone.
View GradientSum::OwnNode(const SharingGroup& group, const GradientSection& section, int node) const {
  const StageSums& stage = stages_.at(section.stage);
  const Sums& sums = IsExperts(group) ? stage.experts : stage.dense;
  return sums.lanes->memory(sums.lanes->Sum(node)).Columns(section.offset, section.elements);
}

absl::Status GradientSum::StartTravel(const SharingGroup& group, size_t index) {
  tickets_[index] = Ticket();
  if (group.ranks.size() == 1) return absl::OkStatus();
  Communicator& link = links_.Of(group.kind);
  link.GroupBegin();
  for (size_t s = 0; s < group.sections.size(); ++s) {
    RETURN_IF_ERROR(AddTravel(group, group.sections[s], exchanges_[index][s]));
  }
  ASSIGN_OR_RETURN(tickets_[index], link.GroupStart(stream_));
  return absl::OkStatus();
}

// Every rank sends every other its part of each node that it has; a node a round.
absl::Status GradientSum::AddTravel(const SharingGroup& group, const GradientSection& section,
                                    const Exchange& exchange) {
  const int me = IndexIn(group);
  Communicator& link = links_.Of(group.kind);
  for (size_t round = 0; round < exchange.rounds; ++round) {
    for (int j = 0; j < group.ranks.size(); ++j) {
      if (j == me) continue;
      const int64_t first = section.boundaries[j], count = section.boundaries[j + 1] - first;
      if (round < exchange.nodes[me].size() && count > 0) {
        const View part = OwnNode(group, section, exchange.nodes[me][round]).Columns(first, count);
        RETURN_IF_ERROR(link.Send(stream_, AsRows(part), j, links_.Named("reduce gradients")));
      }
      if (round < exchange.nodes[j].size() && exchange.received[j][round].elements() > 0) {
        RETURN_IF_ERROR(
            link.Receive(stream_, AsRows(exchange.received[j][round]), j, links_.Named("reduce gradients")));
      }
    }
  }
  return absl::OkStatus();
}

// This rank's part of the sum at a node: received, summed here alone, or the sum of its two halves.
View GradientSum::Fold(const SharingGroup& group, const GradientSection& section, const Exchange& exchange, int node) {
  const int me = IndexIn(group);
  for (int j = 0; j < group.ranks.size(); ++j) {
    for (size_t i = 0; i < exchange.nodes[j].size(); ++i) {
      if (exchange.nodes[j][i] != node) continue;
      if (j != me) return exchange.received[j][i];
      const int64_t first = section.boundaries[me];
      return OwnNode(group, section, node).Columns(first, section.boundaries[me + 1] - first);
    }
  }
  const LaneTree::Node& halves = TreeOf(group).node(node);
  CHECK_GE(halves.left, 0);
  const View left = Fold(group, section, exchange, halves.left);
  const View right = Fold(group, section, exchange, halves.right);
  if (left.elements() > 0) backend_.Add(stream_, left, right, left);
  return left;
}

absl::Status GradientSum::ReduceGroup(const SharingGroup& group) {
  const size_t index = &group - held_.groups().data();
  const int me = IndexIn(group);
  if (tickets_[index]) RETURN_IF_ERROR(links_.Of(group.kind).Wait(stream_, tickets_[index]));
  View mine;  // of the whole group's flat order
  for (size_t s = 0; s < group.sections.size(); ++s) {
    const GradientSection& section = group.sections[s];
    const Exchange& exchange = exchanges_[index][s];
    const View sum = Fold(group, section, exchange, TreeOf(group).root());
    if (section.use == 0) {
      mine = sum;
      continue;
    }
    for (size_t i = 0; i < section.members.size(); ++i) {
      const HeldParameter& held = held_.held()[section.members[i]];
      if (held.reduced.count == 0) continue;
      const View into = mine.Columns(held.group_offset + held.reduced.first - group.boundaries[me], held.reduced.count);
      const View use = sum.Columns(section.starts[i] + held.reduced.first - section.boundaries[me], held.reduced.count);
      backend_.Add(stream_, into, use, into);
    }
  }
  View whole = mine;
  if (group.ranks.size() > 1 && !group.sharded) {
    ASSIGN_OR_RETURN(whole, GatherWhole(group, index, mine));
  }
  SetGradient(group, mine, whole);
  return absl::OkStatus();
}

absl::StatusOr<View> GradientSum::GatherWhole(const SharingGroup& group, size_t index, View mine) {
  const GradientSection& section = group.sections[0];
  const View whole =
      gathered_[index] ? gathered_[index] : OwnNode(group, section, exchanges_[index][0].nodes[IndexIn(group)][0]);
  RETURN_IF_ERROR(
      links_.Of(group.kind)
          .AllGatherV(stream_, AsRows(mine), AsRows(whole), group.boundaries, links_.Named("gather gradients")));
  return whole;
}

void GradientSum::SetGradient(const SharingGroup& group, View mine, View whole) {
  const int64_t first = group.boundaries[IndexIn(group)];
  const int64_t first_kept = group.sharded ? first : 0;
  for (int i : group.members) {
    const HeldParameter& held = held_.held()[i];
    const auto part = [&](View from, const IndexRange& range, int64_t begin) {
      return range.count == 0 ? View() : from.Columns(held.group_offset + range.first - begin, range.count);
    };
    gradient_.reduced[i] = part(mine, held.reduced, first);
    gradient_.kept[i] = part(whole, held.kept, first_kept);
  }
}

}  // namespace shoestring
