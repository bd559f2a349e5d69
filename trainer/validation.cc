// Validation, batch by batch.
#include "trainer/validation.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/status_macros.h"

namespace shoestring {

absl::StatusOr<ValidationResult> Validate(TrainStep& step, TokenSource& source, int64_t sequences,
                                          double bytes_per_token, HostBatch& scratch) {
  const BatchShape& shape = step.batch_shape();
  const Mesh& mesh = step.links().mesh;
  const int64_t size = step.micro_batch(), ranks = mesh.data_ranks();
  const int64_t all = (sequences + size - 1) / size;  // micro-batches
  ValidationResult result;
  double loss_sum = 0.0;
  std::vector<double> losses;
  for (int64_t first = 0; first < all;) {
    const int64_t count = std::min((all - first + ranks - 1) / ranks, shape.max_sequences / size);
    const int64_t begin = std::min((first + mesh.DataIndexOf(step.links().rank) * count) * size, sequences);
    SampleRuns samples;
    samples.runs[0] = {begin, std::min(begin + count * size, sequences) - begin};
    if (absl::Status status = PrepareBatch(source, shape, samples, scratch); !status.ok()) {
      return WithContext(status, "validation");
    }
    PadBatch(shape, count * size, scratch);
    int64_t targets = 0;
    RETURN_IF_ERROR(step.Evaluate(scratch, count, losses, targets));
    for (double loss : losses) loss_sum += loss;
    result.targets += targets;
    first += count * ranks;
  }
  result.sequences = sequences;
  if (result.targets > 0) result.nats_per_token = loss_sum / static_cast<double>(result.targets);
  if (bytes_per_token > 0.0) result.bits_per_byte = result.nats_per_token / (bytes_per_token * std::log(2.0));
  return result;
}

}  // namespace shoestring
