// All forwards, then all backwards: GPipe (Huang et al. 2019, arXiv 1811.06965, section 2.3), one stage a position.
#pragma once

#include <cstdint>

#include "parallel/pipeline/program.h"

namespace shoestring {

// Compute actions only. Backwards run in the order of the micro-batches, since that is the order of their sums. Live
// micro-batches: all M, at every position. `positions` and `micro_batches` are at least 1.
Program BuildGPipe(int positions, int64_t micro_batches);

}  // namespace shoestring
