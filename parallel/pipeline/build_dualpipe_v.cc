// The phases of dualpipe_phases.h, from one end.
#include "parallel/pipeline/build_dualpipe_v.h"

#include <algorithm>

#include "base/check.h"
#include "parallel/pipeline/dualpipe_phases.h"
#include "parallel/pipeline/rewrite.h"

namespace shoestring {

Program BuildDualPipeV(const Mesh& mesh, int64_t micro_batches) {
  CHECK(mesh.stage_order() == StageOrder::kV);
  CHECK_GE(micro_batches, 1);
  const int positions = mesh.pipeline_ranks();
  Program program;
  program.positions.resize(positions);
  for (int p = 0; p < positions; ++p) {
    DualPipePosition position;
    position.half = positions;
    position.from_end = p;
    position.near = {StageId(p), Direction(0)};
    position.far = {StageId(2 * positions - 1 - p), Direction(0)};
    position.per_chunk = std::max<int64_t>(micro_batches, 2 * positions);
    BuildDualPipePhases(position, program.positions[p]);
  }
  if (micro_batches >= 2 * positions) return program;
  return DeferWeightGradients(KeepFirstMicroBatches(program, micro_batches), mesh, 2 * positions + 1);
}

}  // namespace shoestring
