// The i-th forward and the i-th backward of a position name their chunk by arithmetic.
#include "parallel/pipeline/build_interleaved.h"

#include <algorithm>

#include "base/check.h"
#include "parallel/pipeline/compute_list.h"

namespace shoestring {

Program BuildInterleaved(int positions, int chunks, int64_t micro_batches) {
  CHECK_GE(positions, 1);
  CHECK_GE(chunks, 1);
  CHECK_GE(micro_batches, 1);
  CHECK_EQ(micro_batches % positions, 0);
  const int64_t total = micro_batches * chunks;
  Program program;
  program.positions.resize(positions);
  for (int p = 0; p < positions; ++p) {
    ComputeList list(program.positions[p]);
    // Counted in chunks from the side at which the pass enters.
    const auto depth = [&](int64_t i) { return static_cast<int>(i / positions % chunks); };
    const auto chunk_at = [&](int c) { return Chunk{StageId(c * positions + p), Direction(0)}; };
    const int64_t warm_up = std::min<int64_t>(2 * (positions - 1 - p) + int64_t{chunks - 1} * positions, total);
    for (int64_t i = 0; i < warm_up; ++i) list.Forward(chunk_at(depth(i)));
    for (int64_t i = 0; i < total; ++i) {
      if (i + warm_up < total) list.Forward(chunk_at(depth(i + warm_up)));
      list.Backward(chunk_at(chunks - 1 - depth(i)));
    }
  }
  return program;
}

}  // namespace shoestring
