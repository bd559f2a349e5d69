// From a layout to the program that its ranks run.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "configs/schema/parallel.pb.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"

namespace shoestring {

// The program of layout.schedule (absent: one_f_one_b): the builder's order of computation, then Lower, then
// CheckProgram. `mesh` is Mesh::Create(layout). `micro_batches` is the number that enter one pipeline in a step, in
// each direction: of dualpipe half of all. INVALID_ARGUMENT with a hint if the schedule cannot take so many; a program
// that the checker refuses is INTERNAL.
absl::StatusOr<Program> BuildProgram(const config::LayoutConfig& layout, const Mesh& mesh, int64_t micro_batches);

}  // namespace shoestring
