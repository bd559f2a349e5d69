// Two loops a position: forwards, backwards.
#include "parallel/pipeline/build_gpipe.h"

#include "base/check.h"
#include "parallel/pipeline/compute_list.h"

namespace shoestring {

Program BuildGPipe(int positions, int64_t micro_batches) {
  CHECK_GE(positions, 1);
  CHECK_GE(micro_batches, 1);
  Program program;
  program.positions.resize(positions);
  for (int p = 0; p < positions; ++p) {
    ComputeList list(program.positions[p]);
    const Chunk chunk{StageId(p), Direction(0)};
    for (int64_t i = 0; i < micro_batches; ++i) list.Forward(chunk);
    for (int64_t i = 0; i < micro_batches; ++i) list.Backward(chunk);
  }
  return program;
}

}  // namespace shoestring
