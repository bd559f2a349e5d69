// Where a rank stands in the mesh, and its communicators: all that training knows of other ranks.
#pragma once

#include <memory>

#include "absl/functional/function_ref.h"
#include "kernels/backend.h"
#include "parallel/communicator.h"
#include "parallel/mesh.h"
#include "trainer/held.h"

namespace shoestring {

// One communicator a group, each over the members in the order of the mesh's group of that name. Groups of one rank
// have a communicator, too.
struct RankLinks {
  Mesh mesh;
  Rank rank;
  std::unique_ptr<Communicator> world;            // index: the rank
  std::unique_ptr<Communicator> forward;          // Mesh::PipelineGroup, for activations; index: the position
  std::unique_ptr<Communicator> backward;         // the same, for their gradients: two channels, as programs have them
  std::unique_ptr<Communicator> replicas;         // Mesh::ReplicaGroup
  std::unique_ptr<Communicator> experts;          // Mesh::ExpertGroup
  std::unique_ptr<Communicator> expert_replicas;  // Mesh::ExpertReplicaGroup
  std::unique_ptr<Communicator> ends;             // Mesh::EndsGroup; null where that is empty
  double timeout_s = 600.0;                       // of each call

  int position() const { return mesh.PositionOf(rank); }
  // The direction whose micro-batches pass through a stage that this rank holds.
  Direction DirectionOf(StageId stage) const;
  Communicator& Of(SharingGroup::Ranks kind) const;
  CallOptions Named(const char* name) const { return {name, timeout_s}; }
};

// Of a world of one rank, which holds every stage of the mesh.
RankLinks SingleRank(Backend& backend, const Mesh& mesh = *Mesh::Create(config::LayoutConfig()));

// Links of one rank of a mesh. `make` gives the communicator of a group for this rank; ranks of a group ask for theirs
// in the same order.
using MakeCommunicator = absl::FunctionRef<std::unique_ptr<Communicator>(const RankGroup&)>;
RankLinks MakeLinks(const Mesh& mesh, Rank rank, MakeCommunicator make);
// The same links for a rank whose memory is a device's, by way of the host (parallel/staged_communicator.h); links of
// host memory stay as they are. `device` outlives them.
RankLinks LinksOf(Backend& device, RankLinks links);
// Links that move nothing, for measuring memory.
RankLinks LoopbackLinks(const Mesh& mesh, Rank rank);

}  // namespace shoestring
