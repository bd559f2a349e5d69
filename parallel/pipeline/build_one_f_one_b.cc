// Warm-up, steady state, drain.
#include "parallel/pipeline/build_one_f_one_b.h"

#include <algorithm>

#include "base/check.h"
#include "parallel/pipeline/compute_list.h"

namespace shoestring {

Program BuildOneFOneB(int positions, int64_t micro_batches) {
  CHECK_GE(positions, 1);
  CHECK_GE(micro_batches, 1);
  Program program;
  program.positions.resize(positions);
  for (int p = 0; p < positions; ++p) {
    ComputeList list(program.positions[p]);
    const Chunk chunk{StageId(p), Direction(0)};
    const int64_t warm_up = std::min<int64_t>(positions - 1 - p, micro_batches);
    for (int64_t i = 0; i < warm_up; ++i) list.Forward(chunk);
    for (int64_t i = warm_up; i < micro_batches; ++i) {
      list.Forward(chunk);
      list.Backward(chunk);
    }
    for (int64_t i = 0; i < warm_up; ++i) list.Backward(chunk);
  }
  return program;
}

}  // namespace shoestring
