// A program and its simulation as JSON, for tools that are not ours (docs/formats/schedule.md).
#pragma once

#include <string>

#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"
#include "parallel/pipeline/simulate.h"

namespace shoestring {

// One object, one action a line, ends in a line break. Times are those of the simulation, in the unit of its costs.
// Equal input gives equal bytes.
std::string ProgramJson(const Program& program, const Mesh& mesh, const Simulation& simulation);

}  // namespace shoestring
