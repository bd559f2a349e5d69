// Micro-batches from both ends at once: DualPipe (V3 report, arXiv 2412.19437, section 3.2.1; deepseek-ai/DualPipe).
#pragma once

#include <cstdint>

#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"

namespace shoestring {

// Compute actions only. Position p runs stage p for direction 0 and stage P - 1 - p for direction 1, whose
// micro-batches enter at the other end; programs of mirrored positions are mirror images. `mesh` is one of
// StageOrder::kMirror with an even number P of positions; `per_direction` is the number of micro-batches of each
// direction, at least 1.
//
// From P of them on this is the published schedule: at most P + 1 micro-batches alive at a position, the bubble of
// docs/schedules.md. With fewer, the schedule for P loses its last micro-batches, and weight gradients outside of
// overlapped pairs move into the gaps that this leaves.
Program BuildDualPipe(const Mesh& mesh, int64_t per_direction);

}  // namespace shoestring
