// Blended and prefetching sources, and the views that training takes of a row.
#include "data/token_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

absl::Status CheckPreparation(const ShardMeta& meta, const std::string& prefix, const TokenSourceOptions& options) {
  const auto wrong = [&prefix](absl::string_view what, const auto& found, const auto& wanted) {
    return absl::DataLossError(absl::StrCat(prefix, ": prepared with ", what, " ", found, ", the run says ", wanted,
                                            "; prepare the data so, or change the setting of the run"));
  };
  if (options.packing.has_value() && meta.packing != *options.packing) {
    return wrong("packing", PackingName(meta.packing), PackingName(*options.packing));
  }
  if (options.fim_rate.has_value() && meta.settings.fim_rate != *options.fim_rate) {
    return wrong("a fill-in-the-middle rate of", meta.settings.fim_rate, *options.fim_rate);
  }
  if (options.token_split_rate.has_value() && meta.settings.token_split_rate != *options.token_split_rate) {
    return wrong("a token split rate of", meta.settings.token_split_rate, *options.token_split_rate);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlendedSource>> BlendedSource::Open(FileSystem& fs, const TokenSourceOptions& options) {
  std::vector<double> weights;
  for (const SourceOptions& source : options.sources) weights.push_back(source.weight);
  ASSIGN_OR_RETURN(Blend blend, Blend::Create(weights));
  ShardOpenOptions open;
  open.tokenizer_fingerprint = options.tokenizer_fingerprint;
  std::vector<Sampler> samplers;
  for (const SourceOptions& source : options.sources) {
    ASSIGN_OR_RETURN(std::shared_ptr<const ShardReader> shard, ShardReader::Open(fs, source.prefix, open));
    RETURN_IF_ERROR(CheckPreparation(shard->meta(), source.prefix, options));
    ASSIGN_OR_RETURN(Sampler sampler, Sampler::Create(std::move(shard), options.sampler));
    samplers.push_back(std::move(sampler));
  }
  return std::unique_ptr<BlendedSource>(new BlendedSource(options, std::move(samplers), std::move(blend)));
}

BlendedSource::BlendedSource(TokenSourceOptions options, std::vector<Sampler> samplers, Blend blend)
    : options_(std::move(options)), samplers_(std::move(samplers)), blend_(std::move(blend)) {
  const SamplerOptions& sampler = options_.sampler;
  description_ = absl::StrCat("sequence_length ", sampler.sequence_length, ", mtp_depth ", sampler.mtp_depth, ", ",
                              sampler.shuffle ? absl::StrCat("seed ", sampler.seed) : "in order");
  for (size_t i = 0; i < samplers_.size(); ++i) {
    absl::StrAppend(&description_, ", ", blend_.PerPeriod(static_cast<int64_t>(i)), "/", blend_.period(), " of ",
                    samplers_[i].shard().content_hash());
  }
}

absl::Status BlendedSource::Fill(int64_t first_sample, int64_t samples, int32_t* tokens) {
  for (int64_t i = 0; i < samples; ++i) {
    const BlendPick pick = blend_.At(first_sample + i);
    RETURN_IF_ERROR(samplers_[static_cast<size_t>(pick.source)].Read(pick.sample, tokens + i * row_tokens()));
  }
  return absl::OkStatus();
}

std::string BlendedSource::BlendTable() const {
  double total = 0.0;
  for (const SourceOptions& source : options_.sources) total += source.weight;
  std::string table = absl::StrFormat("%10s %10s %14s %14s  %s\n", "wanted", "achieved", "tokens", "samples", "source");
  for (size_t i = 0; i < samplers_.size(); ++i) {
    const double achieved =
        static_cast<double>(blend_.PerPeriod(static_cast<int64_t>(i))) / static_cast<double>(blend_.period());
    absl::StrAppendFormat(&table, "%9.4f%% %9.4f%% %14d %14d  %s\n", 100.0 * options_.sources[i].weight / total,
                          100.0 * achieved, samplers_[i].shard().tokens(), samplers_[i].samples_per_epoch(),
                          options_.sources[i].prefix);
  }
  return table;
}

PrefetchingSource::PrefetchingSource(TokenSource& base, int64_t batch_samples)
    : base_(base),
      batch_samples_(batch_samples),
      buffer_(static_cast<size_t>(batch_samples * base.row_tokens())),
      thread_([this] { Work(); }) {
  CHECK_GE(batch_samples, 1);
}

PrefetchingSource::~PrefetchingSource() {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return state_ != State::kWanted; });
    state_ = State::kStop;
  }
  changed_.notify_all();
  thread_.join();
}

void PrefetchingSource::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return state_ == State::kWanted || state_ == State::kStop; });
    if (state_ == State::kStop) return;
    lock.unlock();
    absl::Status result = base_.Fill(first_sample_, batch_samples_, buffer_.data());
    lock.lock();
    result_ = std::move(result);
    state_ = State::kReady;
    changed_.notify_all();
  }
}

absl::Status PrefetchingSource::Fill(int64_t first_sample, int64_t samples, int32_t* tokens) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return state_ != State::kWanted; });  // the base is ours from here on
  absl::Status result;
  if (state_ == State::kReady && first_sample == first_sample_ && samples == batch_samples_) {
    ++hits_;
    result = result_;
    if (result.ok()) std::memcpy(tokens, buffer_.data(), buffer_.size() * sizeof(int32_t));
  } else {
    result = base_.Fill(first_sample, samples, tokens);
  }
  first_sample_ = first_sample + samples;
  state_ = State::kWanted;
  changed_.notify_all();
  return result;
}

void CopyInputs(const int32_t* rows, int64_t samples, int64_t row_tokens, int64_t sequence_length, int32_t pad_id,
                int32_t* inputs) {
  CHECK_LE(sequence_length, row_tokens);
  for (int64_t s = 0; s < samples; ++s) {
    const int32_t* row = rows + s * row_tokens;
    std::replace_copy(row, row + sequence_length, inputs + s * sequence_length, kNoToken, pad_id);
  }
}

void CopyTargets(const int32_t* rows, int64_t samples, int64_t row_tokens, int64_t sequence_length, int64_t depth,
                 int32_t* targets) {
  CHECK_GE(depth, 0);
  CHECK_LE(sequence_length + 1 + depth, row_tokens);
  for (int64_t s = 0; s < samples; ++s) {
    const int32_t* row = rows + s * row_tokens + 1 + depth;
    std::copy(row, row + sequence_length, targets + s * sequence_length);
  }
}

void FindDocuments(const int32_t* row, int64_t sequence_length, int32_t eos_id, std::vector<int32_t>* boundaries) {
  boundaries->assign(1, 0);
  for (int64_t t = 1; t < sequence_length; ++t) {
    const bool behind_eos = row[t - 1] == eos_id;
    const bool absent_begin = row[t] == kNoToken && row[t - 1] != kNoToken;
    if (behind_eos || absent_begin) boundaries->push_back(static_cast<int32_t>(t));
  }
  boundaries->push_back(static_cast<int32_t>(sequence_length));
}

}  // namespace shoestring
