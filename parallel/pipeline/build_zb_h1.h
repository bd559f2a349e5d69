// 1F1B whose weight gradients wait: ZB-H1 (Qi et al. 2023, arXiv 2401.10241, section 2.2), also called ZB1P, one stage
// a position.
#pragma once

#include <cstdint>

#include "parallel/pipeline/program.h"

namespace shoestring {

// Compute actions only. Forwards and input gradients as in 1F1B; position p keeps up to p weight gradients back, so
// that each position has P micro-batches alive and the later ones hand gradients on sooner, and spends them where 1F1B
// waits. `positions` and `micro_batches` are at least 1.
Program BuildZbH1(int positions, int64_t micro_batches);

}  // namespace shoestring
