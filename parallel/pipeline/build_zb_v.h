// Zero-bubble V: two stages a position, down and back, weight gradients where a position would wait (Qi et al. 2023,
// arXiv 2401.10241, section 6; Qi et al. 2024, arXiv 2405.15362). Position p holds the stages p and 2 P - 1 - p.
#pragma once

#include <cstdint>

#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"

namespace shoestring {

// Compute actions only. At most 2 P stages' activations alive at a position, as many as P micro-batches of 1F1B. From
// 2 P - 1 micro-batches on no position waits between its first and its last action if forward, input gradient and
// weight gradient take the same time. With fewer, the schedule for 2 P - 1 loses its last micro-batches, and weight
// gradients move into the gaps. `mesh` is one of StageOrder::kV; `micro_batches` is at least 1.
Program BuildZbV(const Mesh& mesh, int64_t micro_batches);

}  // namespace shoestring
