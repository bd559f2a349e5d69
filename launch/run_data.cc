// Bodies: from the config's words to sources of tokens.
#include "launch/run_data.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/shard_meta.h"
#include "data/token_source.h"
#include "trainer/checkpoint/digest.h"

namespace shoestring {
namespace {

TokenSourceOptions TrainingOptions(const config::RunConfig& config, int phase, const std::string& fingerprint) {
  TokenSourceOptions options;
  for (const config::Source& source : config.data().source())
    options.sources.push_back({source.prefix(), source.weight()});
  options.tokenizer_fingerprint = fingerprint;
  options.sampler.sequence_length = config.train().phase(phase).sequence_length();
  options.sampler.mtp_depth = config.model().mtp_depth();
  options.sampler.seed = config.train().seed();
  const bool best_fit = config.data().packing() == config::DataConfig::BEST_FIT;
  options.packing = best_fit ? Packing::kBestFit : Packing::kConcatenate;
  options.fim_rate = config.data().fim_rate();
  options.token_split_rate = config.data().token_split_rate();
  return options;
}

// Validation keeps the text as it is, in its order: whatever the training shards were made with does not matter here.
TokenSourceOptions ValidationOptions(const config::RunConfig& config, int phase, const std::string& fingerprint) {
  TokenSourceOptions options;
  options.sources = {{config.data().validation_prefix(), 1.0}};
  options.tokenizer_fingerprint = fingerprint;
  options.sampler.sequence_length = config.train().phase(phase).sequence_length();
  options.sampler.mtp_depth = config.model().mtp_depth();
  options.sampler.shuffle = false;
  return options;
}

absl::Status CheckSpecial(const std::string& path, const char* field, int32_t wanted, int32_t found) {
  if (found < 0 || found == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": its id of the token that ", field, " means is ", found,
                                                 ", but ", field, " is ", wanted, "; set ", field, "=", found,
                                                 " or take the tokenizer of this run"));
}

// What is absent is named by who looked for it; this adds what to do about it.
template <typename T>
absl::StatusOr<T> OrMend(absl::StatusOr<T> found, absl::string_view remedy) {
  if (!absl::IsNotFound(found.status())) return found;
  return absl::NotFoundError(absl::StrCat(found.status().message(), "; ", remedy));
}
constexpr char kMendTokenizer[] = "set data.tokenizer, or make one with 'shoestring data tokenizer-train'";
constexpr char kMendTraining[] = "set data.source.prefix, or make the shard with 'shoestring data prepare'";
constexpr char kMendValidation[] = "set data.validation_prefix, or make the shard with 'shoestring data prepare'";

absl::Status AddValidation(FileSystem& fs, const config::RunConfig& config, RunData& run) {
  for (int phase = 0; phase < config.train().phase_size(); ++phase) {
    ASSIGN_OR_RETURN(
        const std::unique_ptr<BlendedSource> source,
        OrMend(BlendedSource::Open(fs, ValidationOptions(config, phase, run.tokenizer_fingerprint)), kMendValidation));
    const Sampler& sampler = source->samplers().front();
    const int64_t samples = sampler.samples_per_epoch();
    run.data.validation_samples = phase == 0 ? samples : std::min(run.data.validation_samples, samples);
    const ShardMeta& meta = sampler.shard().meta();
    if (meta.tokens > 0) {
      run.data.validation_bytes_per_token = static_cast<double>(meta.text_bytes) / static_cast<double>(meta.tokens);
    }
  }
  run.data.validation = [&fs, config, fingerprint = run.tokenizer_fingerprint](
                            int phase) -> absl::StatusOr<std::unique_ptr<TokenSource>> {
    return BlendedSource::Open(fs, ValidationOptions(config, phase, fingerprint));
  };
  return absl::OkStatus();
}

std::string Hex(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) absl::StrAppend(&hex, absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
  return hex;
}

}  // namespace

absl::StatusOr<Tokenizer> OpenTokenizer(FileSystem& fs, const config::RunConfig& config) {
  const std::string& path = config.data().tokenizer();
  ASSIGN_OR_RETURN(Tokenizer tokenizer, OrMend(Tokenizer::Load(fs, path), kMendTokenizer));
  if (tokenizer.vocab_size() > config.model().vocab_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": has ", tokenizer.vocab_size(), " tokens, but model.vocab_size is ", config.model().vocab_size(),
        "; set model.vocab_size=", tokenizer.vocab_size(), " or train a smaller tokenizer"));
  }
  RETURN_IF_ERROR(CheckSpecial(path, "model.bos_id", config.model().bos_id(), tokenizer.special_ids().bos));
  RETURN_IF_ERROR(CheckSpecial(path, "model.eos_id", config.model().eos_id(), tokenizer.special_ids().eos));
  return tokenizer;
}

absl::StatusOr<RunData> OpenRunData(FileSystem& fs, const config::RunConfig& config) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, OpenTokenizer(fs, config));
  RunData run;
  run.tokenizer_fingerprint = tokenizer.Fingerprint();
  std::string descriptions;
  for (int phase = 0; phase < config.train().phase_size(); ++phase) {
    ASSIGN_OR_RETURN(
        const std::unique_ptr<BlendedSource> source,
        OrMend(BlendedSource::Open(fs, TrainingOptions(config, phase, run.tokenizer_fingerprint)), kMendTraining));
    absl::StrAppend(&descriptions, source->Description(), "\n");
    if (phase == 0) run.blend_table = source->BlendTable();
  }
  run.data_hash = Hex(Sha256::Of(descriptions));
  run.data.training = [&fs, config, fingerprint = run.tokenizer_fingerprint](
                          int phase) -> absl::StatusOr<std::unique_ptr<TokenSource>> {
    return BlendedSource::Open(fs, TrainingOptions(config, phase, fingerprint));
  };
  if (config.train().has_validation()) RETURN_IF_ERROR(AddValidation(fs, config, run));
  return run;
}

}  // namespace shoestring
