// Arithmetic of lanes.
#include "trainer/lanes.h"

#include "base/check.h"

namespace shoestring {

MicroBatchId LaneShare::Id(int64_t micro_batch) const {
  const int64_t in_block = micro_batch % (block * waves);
  return {lanes.first + BlockOf(micro_batch) * block + in_block % block, in_block / block};
}

int64_t LaneShare::ExpertGroup(int64_t of_block, int64_t sum) const {
  const int64_t source = sum * expert_lanes / block, place = sum * expert_lanes % block;
  return (neighbours.first + source * lanes.count + of_block * block + place) / expert_lanes;
}

StepPlan FastPlan(StepPlan plan, const Mesh& mesh) {
  const int64_t lanes = int64_t{mesh.data_ranks()} * mesh.directions();
  plan.waves *= plan.lanes / lanes;
  plan.lanes = lanes;
  plan.expert_lanes = mesh.expert_ranks();
  return plan;
}

LaneShare MakeLaneShare(const Mesh& mesh, Rank rank, Direction direction, int64_t lanes, int64_t expert_lanes,
                        int64_t waves) {
  LaneShare share;
  share.lanes = mesh.LanesOf(mesh.DataIndexOf(rank), direction, lanes);
  const int first = mesh.DataIndexOf(rank) - mesh.ExpertIndexOf(rank);
  share.neighbours = {mesh.LanesOf(first, direction, lanes).first, share.lanes.count * mesh.expert_ranks()};
  share.first_micro_batch = direction.value * share.lanes.count * waves;
  share.waves = waves;
  share.expert_lanes = expert_lanes;
  CHECK_EQ(share.neighbours.count % expert_lanes, 0);
  share.block = share.lanes.count % expert_lanes == 0 ? expert_lanes : share.lanes.count;
  return share;
}

}  // namespace shoestring
