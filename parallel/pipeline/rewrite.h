// Rewrites of compute programs: what schedules do that were made for many micro-batches when there are few.
#pragma once

#include <cstdint>

#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"

namespace shoestring {

// The program without the micro-batches from `micro_batches` on, in every direction. An overlapped pair that loses one
// half leaves the other. What was in order stays in order, since micro-batches never wait for one another.
Program KeepFirstMicroBatches(const Program& program, int64_t micro_batches);

// The same forwards and input gradients in the same order, weight gradients moved to where a position would wait: every
// backward that is not overlapped becomes an input gradient, and its weight gradient comes when the next action cannot
// start yet, when `max_live` micro-batches are alive at the position (all its stages together) and another forward is
// next, or at the end; the oldest first. Waiting is judged on a clock on which a forward, an input gradient and a
// weight gradient take 1 each, a pair 3, messages nothing. `program` holds compute actions only, in an order that can
// be run; `max_live` is at least 1, and exceeded only if the order itself does so.
Program DeferWeightGradients(const Program& program, const Mesh& mesh, int max_live);

}  // namespace shoestring
