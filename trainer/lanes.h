// Which lanes a rank works on, in which order it takes their micro-batches, and whose tokens one sum of expert
// gradients takes together (docs/numerics.md, "Order of sums").
#pragma once

#include <cstdint>

#include "parallel/mesh.h"
#include "parallel/stage.h"
#include "trainer/schedule.h"

namespace shoestring {

// Of one rank and direction. A rank takes its lanes in blocks of `block` lanes, wave by wave: so much of a group of G
// lanes as it owns is under way at once, and no more. Which order that is changes no bit.
struct LaneShare {
  IndexRange lanes;               // own ones
  IndexRange neighbours;          // those of all ranks of the expert group, own ones included
  int64_t first_micro_batch = 0;  // of this direction among the rank's own, in the order of lanes, then waves
  int64_t waves = 1;
  int64_t expert_lanes = 1;  // G
  int64_t block = 1;

  int64_t micro_batches() const { return lanes.count * waves; }
  int64_t blocks() const { return lanes.count / block; }
  // Lanes of the expert group that pass through its experts at the same time: one of each rank.
  int64_t source_lanes() const { return neighbours.count / lanes.count; }

  int64_t BlockOf(int64_t micro_batch) const { return micro_batch / (block * waves); }
  int64_t PlaceInBlock(int64_t micro_batch) const { return micro_batch % block; }
  // The micro-batch that the rank takes `micro_batch`-th.
  MicroBatchId Id(int64_t micro_batch) const;
  // Its place among the rank's own, in the order of lanes, then waves.
  int64_t Place(const MicroBatchId& id) const { return first_micro_batch + (id.lane - lanes.first) * waves + id.wave; }
  // Sums of expert gradients that a block of lanes feeds, and which group of G lanes the `sum`-th of them is, counted
  // over all lanes.
  int64_t sums() const { return source_lanes() * block / expert_lanes; }
  int64_t ExpertGroup(int64_t of_block, int64_t sum) const;
};

// The plan of a step under FAST sums: lanes and groups of expert lanes are the layout's own, one lane a rank and
// direction, so that nothing waits and no more than one accumulator is open; micro-batches stay where they are.
StepPlan FastPlan(StepPlan plan, const Mesh& mesh);

// `expert_lanes` divides the lanes of the expert group (checked by the config's validator); 1 for a model without
// experts.
LaneShare MakeLaneShare(const Mesh& mesh, Rank rank, Direction direction, int64_t lanes, int64_t expert_lanes,
                        int64_t waves);

}  // namespace shoestring
