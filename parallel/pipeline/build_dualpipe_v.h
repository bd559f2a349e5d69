// DualPipe cut in half: micro-batches run down the positions and back, so that one copy of the weights is enough
// (deepseek-ai/DualPipe, DualPipeV; "cut-in-half", Sea AI Lab). Position p holds the stages p and 2 P - 1 - p.
#pragma once

#include <cstdint>

#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"

namespace shoestring {

// Compute actions only. From 2 P micro-batches on the published schedule: at most 2 P + 1 stages' activations alive at
// a position. With fewer, as BuildDualPipe. `mesh` is one of StageOrder::kV; `micro_batches` is at least 1.
Program BuildDualPipeV(const Mesh& mesh, int64_t micro_batches);

}  // namespace shoestring
