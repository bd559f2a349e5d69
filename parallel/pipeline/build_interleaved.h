// 1F1B over several chunks a position: Megatron-LM's interleaved schedule (Narayanan et al. 2021, arXiv 2104.04473,
// section 2.2.2). Stage c * P + p is chunk c of position p.
#pragma once

#include <cstdint>

#include "parallel/pipeline/program.h"

namespace shoestring {

// Compute actions only. Micro-batches go in groups of P: the forwards of a group run through chunk 0, then chunk 1, and
// so on; backwards through the chunks in reverse. Position p begins with 2 (P - 1 - p) + (v - 1) P forwards, or all of
// them if they are fewer, then runs forward and backward in turn. `chunks` is v, at least 1; P divides `micro_batches`.
Program BuildInterleaved(int positions, int chunks, int64_t micro_batches);

}  // namespace shoestring
