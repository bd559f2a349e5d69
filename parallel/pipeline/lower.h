// Adds messages and reductions to a program that only computes: one pass for every schedule.
#pragma once

#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"

namespace shoestring {

// A result that another position reads is sent directly after the action that made it; forward before gradient where an
// overlapped pair made two. It is received directly before the action that needs it, unless an older message of the
// same channel (sender, receiver, forward or backward) is still under way: then both are received, in the order in
// which they were sent. So a channel is a queue, and nothing is received before it must be but for keeping that order.
// Each stage is reduced at each position that holds it, directly after its last weight gradient there. `compute` holds
// compute actions only; whether its order can be run is CheckProgram's to say.
Program Lower(const Program& compute, const Mesh& mesh);

}  // namespace shoestring
