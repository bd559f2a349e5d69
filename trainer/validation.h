// Validation loss: the mean over fixed first sequences of a shard that is never trained on.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "data/token_source.h"
#include "trainer/train_step.h"

namespace shoestring {

struct ValidationResult {
  int64_t step = 0;           // steps done when it was measured
  double nats_per_token = 0;  // main model, over all targets
  double bits_per_byte = 0;   // of the text; 0: the shard does not know its bytes
  int64_t targets = 0;
  int64_t sequences = 0;
  double seconds = 0;
};

// The first `sequences` samples of `source`, whose order must be fixed (no shuffling), in micro-batches of the phase,
// spread over data ranks; every rank calls it and gets the same. `bytes_per_token`: of the shard's text, 0: unknown.
// Batches are prepared into `scratch`.
absl::StatusOr<ValidationResult> Validate(TrainStep& step, TokenSource& source, int64_t sequences,
                                          double bytes_per_token, HostBatch& scratch);

}  // namespace shoestring
