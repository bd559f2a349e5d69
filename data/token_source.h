// Batches of tokens by sample number: blends of shards, prefetched in the background if wanted.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
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

// Reads the batch that follows the last one on a thread of its own, so that the next Fill finds it ready. Same content
// as `base`, which must outlive it and may be used by nobody else meanwhile unless it is thread-safe. Calls from one
// thread at a time.
class PrefetchingSource final : public TokenSource {
 public:
  // Prefetches batches of `batch_samples`; other sizes are read directly. Memory: two such batches, allocated here.
  PrefetchingSource(TokenSource& base, int64_t batch_samples);
  ~PrefetchingSource() override;

  int64_t row_tokens() const override { return base_.row_tokens(); }
  absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) override;
  std::string Description() const override { return base_.Description(); }
  // How many calls found their batch under way or ready.
  int64_t hits() const { return hits_; }

 private:
  enum class State { kIdle, kWanted, kReady, kStop };
  void Work();

  TokenSource& base_;
  const int64_t batch_samples_;
  std::vector<int32_t> buffer_;  // [batch_samples, row_tokens]; the worker's while kWanted, else the caller's
  int64_t first_sample_ = -1;    // of the batch wanted or ready
  absl::Status result_;
  int64_t hits_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::kIdle;
  std::thread thread_;
};

// Inputs [samples, sequence_length] of rows [samples, row_tokens]: kNoToken becomes `pad_id`.
void CopyInputs(const int32_t* rows, int64_t samples, int64_t row_tokens, int64_t sequence_length, int32_t pad_id,
                int32_t* inputs);
// Targets [samples, sequence_length] of prediction depth `depth` (0: the next token): row[t + 1 + depth], kNoToken
// where it is to be ignored.
void CopyTargets(const int32_t* rows, int64_t samples, int64_t row_tokens, int64_t sequence_length, int64_t depth,
                 int32_t* targets);
// Starts of the documents among the first `sequence_length` tokens of a row, then sequence_length: 0 = c0 < c1 < ... A
// document ends behind its eos; absent positions at the end form one of their own. Replaces the content of
// `boundaries`.
void FindDocuments(const int32_t* row, int64_t sequence_length, int32_t eos_id, std::vector<int32_t>* boundaries);

}  // namespace shoestring
