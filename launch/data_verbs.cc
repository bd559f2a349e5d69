// The verbs `data prepare`, `data merge` and `data stat`: text to token shards, and a look at them.
#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "data/data_stat.h"
#include "data/merge.h"
#include "data/prepare.h"
#include "data/tokenizer.h"
#include "launch/exit_codes.h"
#include "launch/text_flags.h"
#include "launch/verbs.h"

namespace shoestring {
namespace {

constexpr int kDone = static_cast<int>(ExitCode::kDone);

int Finish(const absl::Status& status) { return status.ok() ? kDone : Fail(Area::kData, status); }

// What a run's config says about its data, so that the shards are just those that the run will accept.
PrepareOptions OptionsOfConfig(const config::RunConfig& run) {
  PrepareOptions options;
  options.train_prefix = run.data().source(0).prefix();
  options.validation_prefix = run.data().validation_prefix();
  const bool best_fit = run.data().packing() == config::DataConfig::BEST_FIT;
  options.packing = best_fit ? Packing::kBestFit : Packing::kConcatenate;
  options.sequence_length = best_fit ? run.train().phase(0).sequence_length() : 0;
  options.seed = run.train().seed();
  options.fim_rate = run.data().fim_rate();
  options.token_split_rate = run.data().token_split_rate();
  return options;
}

absl::Status ApplyFlags(const Values& values, PrepareOptions& options) {
  RETURN_IF_ERROR(ReadTextFlags(values, options));
  options.train_prefix = ValueOr<std::string>(values, "train", options.train_prefix);
  options.validation_prefix = ValueOr<std::string>(values, "validation", options.validation_prefix);
  options.train_text_path = ValueOr<std::string>(values, "train-text", "");
  options.validation_text_path = ValueOr<std::string>(values, "validation-text", "");
  options.overwrite = values.count("overwrite") > 0;
  return absl::OkStatus();
}

void PrintShard(const char* what, const std::string& prefix, const ShardMeta& meta) {
  if (meta.tokens == 0) return;
  std::printf("%-10s %s: %lld documents, %lld tokens", what, prefix.c_str(), static_cast<long long>(meta.documents),
              static_cast<long long>(meta.tokens));
  if (meta.text_bytes > 0) {  // else unknown
    std::printf(", %.2f bytes a token", static_cast<double>(meta.text_bytes) / static_cast<double>(meta.tokens));
  }
  std::printf("\n");
}

void PrintSummary(const PrepareOptions& options, const PrepareSummary& summary) {
  if (summary.already_there) {
    std::printf("the shards are there already, made from the same text by the same settings\n");
  } else {
    std::printf(
        "%lld parts (%lld found done), %lld documents filled in the middle, %lld longer than a sequence, "
        "%lld empty\n",
        static_cast<long long>(summary.chunks), static_cast<long long>(summary.chunks_reused),
        static_cast<long long>(summary.fim_documents), static_cast<long long>(summary.cut_documents),
        static_cast<long long>(summary.empty_documents));
  }
  PrintShard("training", options.train_prefix, summary.train);
  PrintShard("validation", options.validation_prefix, summary.validation);
}

// Nobody should wonder what the folder is, or lose the work in it.
absl::Status NameParts(const absl::Status& status, const std::string& parts) {
  if (!Exists(PosixFileSystem(), parts) || absl::IsUnavailable(status)) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), " (", parts, " keeps what is done; the next call goes on there)"));
}

absl::Status Prepare(const config::RunConfig& run, const PrepareOptions& options) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(PosixFileSystem(), run.data().tokenizer()));
  if (tokenizer.vocab_size() > run.model().vocab_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        run.data().tokenizer(), ": has ", tokenizer.vocab_size(), " tokens, but model.vocab_size is ",
        run.model().vocab_size(), "; set model.vocab_size=", tokenizer.vocab_size(), " or train a smaller tokenizer"));
  }
  const absl::StatusOr<PrepareSummary> summary =
      shoestring::Prepare(PosixFileSystem(), EncoderOf(tokenizer), options, {});
  if (!summary.ok()) return NameParts(summary.status(), PartsDirectory(options));
  PrintSummary(options, *summary);
  return absl::OkStatus();
}

int RunPrepare(const Values& values) {
  const absl::StatusOr<config::LoadedConfig> loaded = LoadValidConfig(values);
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  PrepareOptions options = OptionsOfConfig(loaded->config);
  const absl::Status flags = ApplyFlags(values, options);
  if (!flags.ok()) return Fail(Area::kUsage, flags);
  return Finish(Prepare(loaded->config, options));
}

// Plain Megatron shards do not say what their tokens are.
absl::Status DescribePlain(const std::string& tokenizer_path, ShardOpenOptions& open) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(PosixFileSystem(), tokenizer_path));
  if (tokenizer.special_ids().eos < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(tokenizer_path, ": has no end-of-sentence token; name the tokenizer of the shards"));
  }
  open.tokenizer_fingerprint = tokenizer.Fingerprint();
  open.plain = PlainShard{tokenizer.Fingerprint(), tokenizer.vocab_size(), tokenizer.special_ids().eos};
  return absl::OkStatus();
}

int RunMerge(const Values& values) {
  MergeOptions options;
  if (values.count("tokenizer") > 0) {
    const absl::Status described = DescribePlain(values["tokenizer"].as<std::string>(), options.open);
    if (!described.ok()) return Fail(Area::kData, described);
  }
  options.inputs = values["input"].as<Words>();
  options.output = values["output"].as<std::string>();
  options.overwrite = values.count("overwrite") > 0;
  const absl::StatusOr<ShardMeta> meta = MergeShards(PosixFileSystem(), options);
  if (!meta.ok()) return Fail(Area::kData, meta.status());
  PrintShard("merged", options.output, *meta);
  return kDone;
}

absl::Status Stat(const Values& values) {
  std::optional<Tokenizer> tokenizer;
  ShardOpenOptions open;
  DataStatOptions options;
  options.top = values["top"].as<int>();
  std::function<std::string(int32_t)> spell;
  if (values.count("tokenizer") > 0) {
    ASSIGN_OR_RETURN(tokenizer, Tokenizer::Load(PosixFileSystem(), values["tokenizer"].as<std::string>()));
    open.tokenizer_fingerprint = tokenizer->Fingerprint();
    options.is_special = [&](int32_t id) { return tokenizer->IsSpecial(id); };
    spell = [&](int32_t id) { return std::string(tokenizer->TokenBytes(id)); };
  }
  const std::string prefix = values["shard"].as<std::string>();
  ASSIGN_OR_RETURN(const std::unique_ptr<ShardReader> shard, ShardReader::Open(PosixFileSystem(), prefix, open));
  ASSIGN_OR_RETURN(const DataStat stat, ComputeDataStat(*shard, options));
  std::fputs(FormatDataStat(shard->meta(), stat, spell).c_str(), stdout);
  return absl::OkStatus();
}

int RunStat(const Values& values) {
  const int top = values["top"].as<int>();
  if (top < 0) {
    return Fail(Area::kUsage, absl::InvalidArgumentError(absl::StrCat("--top ", top, ": is negative; 0 shows none")));
  }
  return Finish(Stat(values));
}

void DeclarePrepare(po::options_description& flags) {
  DeclareConfigFlags(flags);
  DeclareTextFlags(flags);
  auto add = flags.add_options();
  add("train", po::value<std::string>()->value_name("PREFIX"), "shard to write; absent: data.source[0].prefix");
  add("validation", po::value<std::string>()->value_name("PREFIX"), "absent: data.validation_prefix");
  add("train-text", po::value<std::string>()->value_name("FILE"), "also write the text of the training side here");
  add("validation-text", po::value<std::string>()->value_name("FILE"), "also write the held-out text here");
  add("overwrite", "replace shards that were made otherwise, and files where a text is to go");
}

void DeclareMerge(po::options_description& flags) {
  auto add = flags.add_options();
  add("input", po::value<Words>()->multitoken()->required()->value_name("PREFIX..."), "shards, in order");
  add("output", po::value<std::string>()->required()->value_name("PREFIX"), "shard to write");
  add("tokenizer", po::value<std::string>()->value_name("FILE"),
      "of shards without meta.json, as Megatron writes them; of others a check");
  add("overwrite", "replace a shard that stands there");
}

void DeclareStat(po::options_description& flags) {
  auto add = flags.add_options();
  add("shard", po::value<std::string>()->required()->value_name("PREFIX"), "path without .bin and .idx");
  add("tokenizer", po::value<std::string>()->value_name("FILE"), "tokenizer.json: checks that it fits, spells tokens");
  add("top", po::value<int>()->default_value(20)->value_name("N"), "most frequent tokens to show");
}

}  // namespace

std::vector<Verb> DataVerbs() {
  return {
      {"data prepare", "turn text into token shards, as a run config wants them",
       "--config FILE... --input FILE... [--validation-fraction SHARE]",
       "Tokenizer, places, packing, sequence length, rates and seed are those of the config, so that the run takes\n"
       "the shards. Killed and called again, it goes on where it was; called once more, it finds all done.\n\n"
       "Example:\n"
       "  shoestring data prepare --config configs/recipes/tiny_cpu.textproto --input corpus.jsonl \\\n"
       "      --validation-fraction 0.01",
       DeclarePrepare, "", RunPrepare},
      {"data merge", "join shards into one, checked", "--input PREFIX... --output PREFIX [--tokenizer FILE]",
       "One plain Megatron shard becomes one of ours, which a run takes.\n\n"
       "Example:\n  shoestring data merge --input data/a data/b --output data/ab",
       DeclareMerge, "", RunMerge},
      {"data stat", "look at the tokens of a shard", "PREFIX [--tokenizer FILE]",
       "Reads and verifies everything. Warnings at the end name what looks like a wrong tokenizer or broken text.\n\n"
       "Example:\n  shoestring data stat data/train --tokenizer data/tokenizer.json",
       DeclareStat, "shard", RunStat},
  };
}

}  // namespace shoestring
