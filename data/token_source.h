// Batches of tokens by sample number: blends of shards.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "data/blend.h"
#include "data/sampler.h"
#include "data/shard_meta.h"

namespace shoestring {

class TokenSource {
 public:
  virtual ~TokenSource() = default;
  // Tokens of a row: sequence_length + 1 + mtp_depth.
  virtual int64_t row_tokens() const = 0;
  // Writes rows of samples [first_sample, first_sample + samples) to `tokens` [samples, row_tokens]; kNoToken where a
  // sample has none. The content depends on the arguments alone, never on earlier calls. `first_sample` is all the
  // state there is to resume.
  virtual absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) = 0;
  // Names content and order: sources by hash, weights, seed. Equal texts give equal batches.
  virtual std::string Description() const = 0;
};

struct SourceOptions {
  std::string prefix;
  double weight = 1.0;
};

struct TokenSourceOptions {
  std::vector<SourceOptions> sources;
  std::string tokenizer_fingerprint;  // of the run; other shards are refused
  SamplerOptions sampler;
  // What the shards must have been prepared with; nothing: anything.
  std::optional<Packing> packing;
  std::optional<double> fim_rate, token_split_rate;
};

// Weighted shards; thread-safe. Opens and checks all of them. DATA_LOSS names the shard that does not fit.
class BlendedSource final : public TokenSource {
 public:
  static absl::StatusOr<std::unique_ptr<BlendedSource>> Open(FileSystem& fs, const TokenSourceOptions& options);

  int64_t row_tokens() const override { return samplers_.front().row_tokens(); }
  absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) override;
  std::string Description() const override { return description_; }

  const std::vector<Sampler>& samplers() const { return samplers_; }
  // Requested and achieved share of each source, its size and epochs per sample: the table printed at start.
  std::string BlendTable() const;

 private:
  BlendedSource(TokenSourceOptions options, std::vector<Sampler> samplers, Blend blend);

  TokenSourceOptions options_;
  std::vector<Sampler> samplers_;
  Blend blend_;
  std::string description_;
};

}  // namespace shoestring
