// The auxiliary-loss-free balance rule: experts with less than the mean load become likelier, the others less likely
// (V3 report, section 2.1.2; Wang et al. 2024, algorithm 1).
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace shoestring {

// bias[i] += speed * sign(mean(counts) - counts[i]), counts over the whole global batch of one step. Compared as
// integers, N * counts[i] with the total, so that no layout can round differently. One FP32 addition an expert.
void UpdateBias(absl::Span<const int64_t> counts, double speed, absl::Span<float> bias);

// Largest load over mean load; 1 is perfect balance. 0 when nothing was counted.
double MaxOverMean(absl::Span<const int64_t> counts);

}  // namespace shoestring
