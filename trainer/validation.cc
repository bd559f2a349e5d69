// Validation, batch by batch.
#include "trainer/validation.h"

#include <algorithm>
#include <cmath>

#include "base/status_macros.h"

namespace shoestring {

absl::StatusOr<ValidationResult> Validate(TrainStep& step, TokenSource& source, int64_t sequences,
                                          double bytes_per_token, HostBatch& scratch) {
  const BatchShape& shape = step.batch_shape();
  const int64_t micro_batch = step.model().shape().sequences;
  ValidationResult result;
  double loss_sum = 0.0;
  while (result.sequences < sequences) {
    const int64_t count = std::min(sequences - result.sequences, shape.max_sequences);
    if (absl::Status status = PrepareBatch(source, shape, result.sequences, count, scratch); !status.ok()) {
      return WithContext(status, "validation");
    }
    PadBatch(shape, (count + micro_batch - 1) / micro_batch * micro_batch, scratch);
    step.Evaluate(scratch, loss_sum, result.targets);
    result.sequences += count;
  }
  if (result.targets > 0) result.nats_per_token = loss_sum / static_cast<double>(result.targets);
  if (bytes_per_token > 0.0) result.bits_per_byte = result.nats_per_token / (bytes_per_token * std::log(2.0));
  return result;
}

}  // namespace shoestring
