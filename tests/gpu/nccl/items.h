// What the NCCL checks do, a function each; all ranks call the same ones in the same order.
#pragma once

#include "absl/status/status.h"
#include "tests/gpu/nccl/rank.h"

namespace shoestring::gpu {

// Every verb, alone, in groups and beside the stream, against plain loops; odd sizes, empty parts, gaps between rows.
absl::Status CheckParity(RankContext& context);
// The last rank dies in the middle; the others must be told within the deadline, and join a smaller group.
// The last rank does not return.
absl::Status CheckFaults(RankContext& context);
// Rates: equal and token-shaped all-to-all beside DeepEP's published figures, all-reduce, all-gather, reduce-scatter,
// point to point. `max_bytes`: the largest message. Rank 0 prints rows of a Markdown table.
absl::Status MeasureRates(RankContext& context, int64_t max_bytes);

}  // namespace shoestring::gpu
