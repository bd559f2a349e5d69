// One forward, one backward in turn: the schedule of PipeDream-Flush (Narayanan et al. 2021, arXiv 2104.04473, section
// 2.2.1), for any number of positions, one stage each.
#pragma once

#include <cstdint>

#include "parallel/pipeline/program.h"

namespace shoestring {

// Compute actions only. Position p runs min(P - 1 - p, M) forwards, then forward and backward in turn, then the
// backwards left. Live micro-batches at p: min(P - p, M). `positions` and `micro_batches` are at least 1.
Program BuildOneFOneB(int positions, int64_t micro_batches);

}  // namespace shoestring
