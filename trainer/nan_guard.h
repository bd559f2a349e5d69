// NaN and infinity never reach a parameter: the step stops before the optimizer and says which tensor it was.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "trainer/accumulate.h"
#include "trainer/params.h"

namespace shoestring {

// A status that stops the run on purpose, so that it is not restarted (exit code 79).
absl::Status StopOnPurpose(absl::string_view message);
bool IsStopOnPurpose(const absl::Status& status);

// What went wrong in a loss: `name` ("loss", "loss_mtp"), value, lane and wave. OK if all values[lane * waves + wave]
// are finite.
absl::Status CheckLosses(absl::string_view name, absl::Span<const double> values, int64_t waves);

// The first gradient element, in table order, that is no finite number, for the message of the stop. `sums` are the
// norm's block sums (see GradientNorm): a block without such an element has a finite one. OK if all are finite.
absl::Status CheckGradients(Backend& backend, Stream& stream, const std::vector<Parameter>& table,
                            const GradientSet& gradients, absl::Span<const double> sums);

}  // namespace shoestring
