// The phases of dualpipe_phases.h, from both ends.
#include "parallel/pipeline/build_dualpipe.h"

#include <algorithm>

#include "base/check.h"
#include "parallel/pipeline/dualpipe_phases.h"
#include "parallel/pipeline/rewrite.h"

namespace shoestring {

Program BuildDualPipe(const Mesh& mesh, int64_t per_direction) {
  CHECK(mesh.stage_order() == StageOrder::kMirror);
  const int positions = mesh.pipeline_ranks();
  CHECK_EQ(positions % 2, 0);
  CHECK_GE(per_direction, 1);
  Program program;
  program.positions.resize(positions);
  for (int p = 0; p < positions; ++p) {
    const bool second_half = p >= positions / 2;
    const Chunk down{StageId(p), Direction(0)};
    const Chunk up{StageId(positions - 1 - p), Direction(1)};
    DualPipePosition position;
    position.half = positions / 2;
    position.from_end = std::min(p, positions - 1 - p);
    position.near = second_half ? up : down;
    position.far = second_half ? down : up;
    position.per_chunk = std::max<int64_t>(per_direction, positions);
    BuildDualPipePhases(position, program.positions[p]);
  }
  if (per_direction >= positions) return program;
  return DeferWeightGradients(KeepFirstMicroBatches(program, per_direction), mesh, positions + 1);
}

}  // namespace shoestring
