// The eight phases that one position of DualPipe runs, and of DualPipeV, which is one half of it: what the two share.
// Source: deepseek-ai/DualPipe, `step` of both classes; V3 report (arXiv 2412.19437), section 3.2.1.
#pragma once

#include <cstdint>

#include "parallel/pipeline/compute_list.h"

namespace shoestring {

struct DualPipePosition {
  int half = 1;           // positions from an end to the turning point: P / 2 in DualPipe, P in DualPipeV
  int from_end = 0;       // q, distance from the end where micro-batches enter; half - 1 at the turning point
  Chunk near, far;        // the stages here: as micro-batches enter, and as they come from the other half
  int64_t per_chunk = 2;  // micro-batches of each of the two; at least 2 * half
};

// Compute actions only.
void BuildDualPipePhases(const DualPipePosition& position, std::vector<Action>& actions);

}  // namespace shoestring
