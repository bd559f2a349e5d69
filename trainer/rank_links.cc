// Links of one rank, and which communicator belongs to which group.
#include "trainer/rank_links.h"

#include <memory>
#include <string>
#include <utility>

#include "base/check.h"
#include "parallel/loopback_communicator.h"
#include "parallel/single_communicator.h"
#include "parallel/staged_communicator.h"

namespace shoestring {

Direction RankLinks::DirectionOf(StageId stage) const {
  for (int d = 0; d < mesh.directions(); ++d) {
    if (mesh.StagePosition(stage, Direction(d)) == position()) return Direction(d);
  }
  internal::CheckFailed(__FILE__, __LINE__, "the rank does not hold the stage");
}

Communicator& RankLinks::Of(SharingGroup::Ranks kind) const {
  switch (kind) {
    case SharingGroup::Ranks::kReplicas: return *replicas;
    case SharingGroup::Ranks::kExpertReplicas: return *expert_replicas;
    case SharingGroup::Ranks::kEnds: return *ends;
  }
  return *replicas;
}

RankLinks SingleRank(Backend& backend, const Mesh& mesh) {
  CHECK_EQ(mesh.world_size(), 1);
  return MakeLinks(mesh, Rank(0), [&](const RankGroup&) { return MakeSingleCommunicator(backend); });
}

RankLinks MakeLinks(const Mesh& mesh, Rank rank, MakeCommunicator make) {
  RankLinks links{mesh, rank, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  RankGroup world{"world", {}};
  for (int r = 0; r < mesh.world_size(); ++r) world.members.push_back(Rank(r));
  links.world = make(world);
  RankGroup pipeline = mesh.PipelineGroup(rank);
  const std::string name = pipeline.name;
  pipeline.name = name + ", forward";
  links.forward = make(pipeline);
  pipeline.name = name + ", backward";
  links.backward = make(pipeline);
  links.replicas = make(mesh.ReplicaGroup(rank));
  links.experts = make(mesh.ExpertGroup(rank));
  links.expert_replicas = make(mesh.ExpertReplicaGroup(rank));
  const RankGroup ends = mesh.EndsGroup(rank);
  if (ends.size() > 0) links.ends = make(ends);
  return links;
}

RankLinks LinksOf(Backend& device, RankLinks links) {
  if (device.memory_is_hosts()) return links;
  for (std::unique_ptr<Communicator>* link : {&links.world, &links.forward, &links.backward, &links.replicas,
                                              &links.experts, &links.expert_replicas, &links.ends}) {
    if (*link != nullptr) *link = MakeStagedCommunicator(std::move(*link), device);
  }
  return links;
}

RankLinks LoopbackLinks(const Mesh& mesh, Rank rank) {
  return MakeLinks(mesh, rank,
                   [&](const RankGroup& group) { return MakeLoopbackCommunicator(group.size(), group.IndexOf(rank)); });
}

}  // namespace shoestring
