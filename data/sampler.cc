// Where a sample lies, and its tokens.
#include "data/sampler.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/rng.h"
#include "base/status_macros.h"
#include "data/permutation.h"

namespace shoestring {

absl::StatusOr<Sampler> Sampler::Create(std::shared_ptr<const ShardReader> shard, const SamplerOptions& options) {
  CHECK_GE(options.sequence_length, 1);
  CHECK_GE(options.mtp_depth, 0);
  const ShardMeta& meta = shard->meta();
  int64_t samples = shard->sequences();
  if (meta.packing == Packing::kConcatenate) {
    samples = (shard->tokens() - 1 + options.sequence_length - 1) / options.sequence_length;
    if (shard->tokens() < 2) samples = 0;
  } else if (meta.sequence_length != options.sequence_length) {
    return absl::DataLossError(absl::StrCat(shard->prefix(), ": packed for a sequence length of ", meta.sequence_length,
                                            ", the run has ", options.sequence_length,
                                            "; prepare the data for this length, or with CONCATENATE for any"));
  }
  if (samples == 0) return absl::DataLossError(absl::StrCat(shard->prefix(), ": holds no sample; prepare more text"));
  return Sampler(std::move(shard), options, samples);
}

int64_t Sampler::PlaceOf(int64_t k) const {
  CHECK_GE(k, 0);
  const int64_t place = k % samples_per_epoch_;
  if (!options_.shuffle) return place;
  const auto epoch = static_cast<uint64_t>(k / samples_per_epoch_);
  const std::string& name = shard_->content_hash();
  const uint64_t stream = XXH3_64bits_withSeed(name.data(), name.size(), epoch);
  return Permutation(Rng(options_.seed, RngPurpose::kShuffle, stream), samples_per_epoch_)(place);
}

absl::Status Sampler::Read(int64_t k, int32_t* row) const {
  const int64_t place = PlaceOf(k);
  int64_t first = 0, count = 0;
  if (shard_->meta().packing == Packing::kConcatenate) {
    first = place * options_.sequence_length;
    count = std::min(row_tokens(), shard_->tokens() - first);
  } else {
    first = shard_->SequenceStart(place);
    count = shard_->SequenceLength(place);
    if (count > options_.sequence_length + 1) {
      return absl::DataLossError(absl::StrCat(shard_->prefix(), ": sequence ", place, " has ", count,
                                              " tokens, more than fit a sample; prepare the data again"));
    }
  }
  RETURN_IF_ERROR(shard_->Read(first, count, row));
  std::fill(row + count, row + row_tokens(), kNoToken);
  return absl::OkStatus();
}

}  // namespace shoestring
