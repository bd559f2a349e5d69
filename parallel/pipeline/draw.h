// A simulated program as a picture: one row a position, time to the right.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"
#include "parallel/pipeline/simulate.h"

namespace shoestring {

// One SVG file, readable on a light and on a dark page; no script, no fonts, no files. Boxes are coloured by what is
// computed, darker for direction 1 (bidirectional) or for later stages of a position (several chunks); the two halves
// of an overlapped pair are stacked in a frame. Numbers of micro-batches stand in the boxes that have room. `title` may
// hold any characters. Equal input gives equal bytes.
std::string DrawSimulation(const Program& program, const Mesh& mesh, const Simulation& simulation,
                           absl::string_view title);

}  // namespace shoestring
