// Text from a checkpoint: loads the weights, continues a prompt token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/file_system.h"
#include "configs/schema/run.pb.h"
#include "trainer/checkpoint/load.h"

namespace shoestring {

struct SamplingOptions {
  double temperature = 1;  // 0: the likeliest token
  int64_t top_k = 0;       // choose among so many likeliest tokens; 0: among all
  uint64_t seed = 0;
};

// The token drawn from softmax(logits / temperature) by the number `index` of the seed's stream. Pure.
int32_t SampleToken(absl::Span<const float> logits, const SamplingOptions& options, uint64_t index);

// A model that only computes the next token. Not thread-safe.
class Generator {
 public:
  // Verifies and reads the weights of `checkpoint` (their moving average if `ema`), as the config in it describes them.
  // FAILED_PRECONDITION when this build cannot run that config or the run kept no average; errors of ReadState.
  static absl::StatusOr<std::unique_ptr<Generator>> Load(FileSystem& fs, const OpenedCheckpoint& checkpoint, bool ema,
                                                         int threads);
  ~Generator();

  const config::RunConfig& config() const { return config_; }
  // The logits [vocab] of the token that follows `ids` (not empty), of which the last sequence_length count. Valid
  // until the next call.
  absl::Span<const float> NextLogits(absl::Span<const int32_t> ids);

 private:
  struct Parts;  // backend, memory, model
  Generator(config::RunConfig config, std::unique_ptr<Parts> parts);

  const config::RunConfig config_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace shoestring
