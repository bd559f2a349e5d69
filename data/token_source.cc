// Blended sources: which sample comes from which shard.
#include "data/token_source.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
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

}  // namespace shoestring
