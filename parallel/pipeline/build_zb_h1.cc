// 1F1B with a queue of weight gradients, p long at position p.
#include "parallel/pipeline/build_zb_h1.h"

#include <algorithm>

#include "base/check.h"
#include "parallel/pipeline/compute_list.h"

namespace shoestring {

Program BuildZbH1(int positions, int64_t micro_batches) {
  CHECK_GE(positions, 1);
  CHECK_GE(micro_batches, 1);
  Program program;
  program.positions.resize(positions);
  for (int p = 0; p < positions; ++p) {
    ComputeList list(program.positions[p]);
    const Chunk chunk{StageId(p), Direction(0)};
    const int64_t warm_up = std::min<int64_t>(positions - 1 - p, micro_batches);
    for (int64_t i = 0; i < warm_up; ++i) list.Forward(chunk);
    for (int64_t i = 0; i < micro_batches; ++i) {
      if (i + warm_up < micro_batches) list.Forward(chunk);
      list.BackwardInput(chunk);
      if (i >= p) list.OldestWeights();
    }
    while (list.weights_wait()) list.OldestWeights();
  }
  return program;
}

}  // namespace shoestring
