// Warm-up down the V, then both legs; each steady round is F I W on the way down and F I W on the way back.
#include "parallel/pipeline/build_zb_v.h"

#include <algorithm>

#include "base/check.h"
#include "parallel/pipeline/compute_list.h"
#include "parallel/pipeline/rewrite.h"

namespace shoestring {
namespace {

void BackwardWithWeights(Chunk chunk, ComputeList& list) {
  list.BackwardInput(chunk);
  list.OldestWeights(chunk);
}

void BuildPosition(int p, int positions, int64_t micro_batches, std::vector<Action>& actions) {
  ComputeList list(actions);
  const Chunk down{StageId(p), Direction(0)};
  const Chunk back{StageId(2 * positions - 1 - p), Direction(0)};
  for (int i = 0; i < 2 * (positions - p) - 1; ++i) list.Forward(down);
  for (int i = 0; i < p; ++i) {
    list.Forward(back);
    list.Forward(down);
  }
  for (int i = 0; i < positions - p; ++i) {
    list.Forward(back);
    BackwardWithWeights(back, list);
  }
  while (list.forwards(back) < micro_batches) {
    if (list.forwards(down) < micro_batches) list.Forward(down);
    BackwardWithWeights(down, list);
    list.Forward(back);
    BackwardWithWeights(back, list);
  }
  // The drain: gradients first at the turning point, whose neighbours wait for them.
  for (int i = 0; i < p; ++i) {
    list.BackwardInput(down);
    list.BackwardInput(back);
  }
  for (int i = 0; i < positions - p; ++i) {
    list.BackwardInput(down);
    list.OldestWeights(down);
  }
  while (list.weights_wait()) list.OldestWeights();
}

}  // namespace

Program BuildZbV(const Mesh& mesh, int64_t micro_batches) {
  CHECK(mesh.stage_order() == StageOrder::kV);
  CHECK_GE(micro_batches, 1);
  const int positions = mesh.pipeline_ranks();
  const int64_t fewest = 2 * positions - 1;
  Program program;
  program.positions.resize(positions);
  for (int p = 0; p < positions; ++p) {
    BuildPosition(p, positions, std::max<int64_t>(micro_batches, fewest), program.positions[p]);
  }
  if (micro_batches >= fewest) return program;
  return DeferWeightGradients(KeepFirstMicroBatches(program, micro_batches), mesh, 2 * positions);
}

}  // namespace shoestring
