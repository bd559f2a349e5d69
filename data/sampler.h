// Samples of one shard: sample k is a pure function of (shard, seed, k).
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/shard.h"

namespace shoestring {

// Stands in a row where the sample has no token.
constexpr int32_t kNoToken = -1;

struct SamplerOptions {
  int64_t sequence_length = 0;  // inputs of a sample
  int64_t mtp_depth = 0;        // further targets at the end of a sample
  uint64_t seed = 0;
  bool shuffle = true;  // false: samples in the order of the shard, as validation wants
};

// Thread-safe. Rows have sequence_length + 1 + mtp_depth tokens.
class Sampler {
 public:
  // DATA_LOSS if the shard was packed for another sequence length or holds no sample.
  static absl::StatusOr<Sampler> Create(std::shared_ptr<const ShardReader> shard, const SamplerOptions& options);

  int64_t row_tokens() const { return options_.sequence_length + 1 + options_.mtp_depth; }
  // A concatenated shard of T tokens has ceil((T - 1) / sequence_length) windows, a packed one a sample a sequence.
  int64_t samples_per_epoch() const { return samples_per_epoch_; }
  const ShardReader& shard() const { return *shard_; }

  // Place in the shard (window or sequence) of sample `k`: epochs follow each other, each a permutation of its own.
  int64_t PlaceOf(int64_t k) const;
  // Writes the row of sample `k`, kNoToken behind its end. DATA_LOSS as ShardReader::Read.
  absl::Status Read(int64_t k, int32_t* row) const;

 private:
  Sampler(std::shared_ptr<const ShardReader> shard, const SamplerOptions& options, int64_t samples)
      : shard_(std::move(shard)), options_(options), samples_per_epoch_(samples) {}

  std::shared_ptr<const ShardReader> shard_;
  SamplerOptions options_;
  int64_t samples_per_epoch_;
};

}  // namespace shoestring
