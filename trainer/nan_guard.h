// NaN and infinity never reach a parameter: the step stops before the optimizer and says which tensor it was.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "trainer/gradient_sum.h"
#include "trainer/held.h"
#include "trainer/rank_links.h"

namespace shoestring {

// A status that stops the run on purpose, so that it is not restarted (exit code 79).
absl::Status StopOnPurpose(absl::string_view message);
bool IsStopOnPurpose(const absl::Status& status);

// What went wrong in a loss: `name` ("loss", "loss_mtp"), value, lane and wave. OK if all values[lane * waves + wave]
// are finite.
absl::Status CheckLosses(absl::string_view name, absl::Span<const double> values, int64_t waves);

// The first gradient element, in the order of the whole table, that is no finite number, for the message of the stop,
// the same on every rank. `sums` are the norm's block sums (see GradientNorm): a block without such an element has a
// finite one. `answer` f64 [1, 2] is room for what the rank with that element says. OK if all are finite.
absl::Status CheckGradients(Backend& backend, Stream& stream, const HeldTable& held, const Gradient& gradient,
                            absl::Span<const double> sums, const RankLinks& links, View answer);

}  // namespace shoestring
