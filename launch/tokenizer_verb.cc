// The verb `data tokenizer-train`: learns a byte-level BPE vocabulary from text.
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "data/bpe_train.h"
#include "data/prepare_encode.h"
#include "data/tokenizer.h"
#include "launch/exit_codes.h"
#include "launch/text_flags.h"
#include "launch/verbs.h"

namespace shoestring {
namespace {

constexpr int64_t kBatchBytes = int64_t{64} << 20;  // of text counted at once

// Counts the words of the documents that `data prepare` puts into the training shard under the same options.
absl::Status CountTrainingText(const PrepareOptions& options, WordCounter& counter) {
  ChunkReader reader(PosixFileSystem(), options);
  TextChunk chunk;
  int64_t counted = 0, held_out = 0;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(&chunk));
    if (!more) break;
    std::vector<absl::string_view> documents;
    for (size_t i = 0; i < chunk.documents.size(); ++i) {
      if (IsHeldOut(options, chunk.first_document + static_cast<int64_t>(i))) continue;
      documents.push_back(chunk.documents[i].text);
    }
    counted += static_cast<int64_t>(documents.size());
    held_out += static_cast<int64_t>(chunk.documents.size() - documents.size());
    RETURN_IF_ERROR(counter.Add(documents));
  }
  std::printf("%lld documents read, %lld held out\n", static_cast<long long>(counted),
              static_cast<long long>(held_out));
  return absl::OkStatus();
}

absl::Status Train(const Values& values, const PrepareOptions& text) {
  ASSIGN_OR_RETURN(const PreTokenizer pre_tokenizer, PreTokenizer::Create(DeepSeekV3Patterns()));
  WordCounter counter(&pre_tokenizer, text.threads);
  const double start = RealClock().MonotonicSeconds();
  RETURN_IF_ERROR(CountTrainingText(text, counter));
  std::printf("%zu different words counted in %.1f s\n", counter.counts().size(),
              RealClock().MonotonicSeconds() - start);
  BpeTrainOptions options;
  options.vocab_size = values["vocab-size"].as<int>();
  ASSIGN_OR_RETURN(TokenizerSpec spec, TrainBpe(counter.counts(), options));
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Create(std::move(spec)));
  const std::string output = values["output"].as<std::string>();
  RETURN_IF_ERROR(WriteFileDurably(PosixFileSystem(), output, tokenizer.ToJson()));
  std::printf("%s: %d tokens in %.1f s, fingerprint %s\n", output.c_str(), tokenizer.vocab_size(),
              RealClock().MonotonicSeconds() - start, tokenizer.Fingerprint().c_str());
  return absl::OkStatus();
}

absl::Status ReadTextFlagsAndSeed(const Values& values, PrepareOptions& text) {
  RETURN_IF_ERROR(ReadTextFlags(values, text));
  if (text.validation_fraction > 0 && values.count("seed") == 0) {
    return absl::InvalidArgumentError(
        "--validation-fraction needs --seed, the train.seed of the run: it decides which "
        "documents are held out");
  }
  text.seed = ValueOr<uint64_t>(values, "seed", 0);
  const std::string output = values["output"].as<std::string>();
  for (const std::string& input : text.inputs) {
    if (CanonicalPath(input) != CanonicalPath(output)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--output ", output, ": the input ", input, " would be overwritten; name another file"));
  }
  return absl::OkStatus();
}

int Run(const Values& values) {
  PrepareOptions text;
  text.chunk_bytes = kBatchBytes;
  const absl::Status flags = ReadTextFlagsAndSeed(values, text);
  if (!flags.ok()) return Fail(Area::kUsage, flags);
  const std::string output = values["output"].as<std::string>();
  if (Exists(PosixFileSystem(), output) && values.count("overwrite") == 0) {
    return Fail(Area::kData, absl::AlreadyExistsError(absl::StrCat(
                                 output,
                                 ": exists; shards made with it need it as it is: name another file, or say "
                                 "--overwrite")));
  }
  const absl::Status status = Train(values, text);
  return status.ok() ? static_cast<int>(ExitCode::kDone) : Fail(Area::kData, status);
}

void Declare(po::options_description& flags) {
  DeclareTextFlags(flags);
  auto add = flags.add_options();
  add("vocab-size", po::value<int>()->required()->value_name("N"), "tokens: special ones, 256 bytes, merges");
  add("output", po::value<std::string>()->required()->value_name("FILE"), "tokenizer.json to write");
  add("seed", po::value<uint64_t>()->value_name("N"), "train.seed of the run: decides what is held out");
  add("overwrite", "replace the file");
}

}  // namespace

Verb TokenizerTrainVerb() {
  return {
      "data tokenizer-train",
      "learn a byte-level BPE vocabulary from text",
      "--input FILE... --vocab-size N --output FILE",
      "The result is a tokenizer.json with DeepSeek-V3's pre-tokenizer and special tokens, which Hugging Face\n"
      "tokenizers reads too. With the run's train.seed and the --validation-fraction of 'data prepare', the documents\n"
      "that are held out there do not count here: validation stays text that nothing was fitted to.\n\n"
      "Example:\n"
      "  shoestring data tokenizer-train --input corpus.jsonl --vocab-size 4096 --output tokenizer.json \\\n"
      "      --validation-fraction 0.01 --seed 1",
      Declare,
      "",
      Run};
}

}  // namespace shoestring
