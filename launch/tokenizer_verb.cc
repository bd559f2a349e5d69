// The verb `data tokenizer-train`: learns a byte-level BPE vocabulary from text.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "data/bpe_train.h"
#include "data/text_reader.h"
#include "data/tokenizer.h"
#include "launch/exit_codes.h"
#include "launch/verbs.h"

namespace shoestring {
namespace {

constexpr size_t kBatchBytes = size_t{64} << 20;  // of text counted at once

absl::Status CountDocuments(const std::vector<std::string>& documents, WordCounter& counter) {
  const std::vector<absl::string_view> views(documents.begin(), documents.end());
  return counter.Add(views);
}

absl::Status CountFile(const std::string& path, const TextReaderOptions& options, WordCounter& counter) {
  ASSIGN_OR_RETURN(const std::unique_ptr<DocumentReader> reader, OpenDocuments(PosixFileSystem(), path, options));
  std::vector<std::string> batch;
  size_t batch_bytes = 0;
  Document document;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, reader->Next(&document));
    if (more) {
      batch_bytes += document.text.size();
      batch.push_back(std::move(document.text));
    }
    if (more && batch_bytes < kBatchBytes) continue;
    RETURN_IF_ERROR(CountDocuments(batch, counter));
    batch.clear();
    batch_bytes = 0;
    if (!more) return absl::OkStatus();
  }
}

absl::Status Train(const Values& values) {
  ASSIGN_OR_RETURN(const PreTokenizer pre_tokenizer, PreTokenizer::Create(DeepSeekV3Patterns()));
  WordCounter counter(&pre_tokenizer, ThreadsOrCores(values["threads"].as<int>()));
  TextReaderOptions reader;
  reader.json_key = values["json-key"].as<std::string>();
  const double start = RealClock().MonotonicSeconds();
  for (const std::string& path : values["input"].as<Words>()) RETURN_IF_ERROR(CountFile(path, reader, counter));
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

int Run(const Values& values) {
  const std::string output = values["output"].as<std::string>();
  if (Exists(PosixFileSystem(), output) && values.count("overwrite") == 0) {
    return Fail(Area::kData, absl::AlreadyExistsError(absl::StrCat(
                                 output,
                                 ": exists; shards made with it need it as it is: name another file, or say "
                                 "--overwrite")));
  }
  const absl::Status status = Train(values);
  return status.ok() ? static_cast<int>(ExitCode::kDone) : Fail(Area::kData, status);
}

void Declare(po::options_description& flags) {
  auto add = flags.add_options();
  add("input", po::value<Words>()->multitoken()->required()->value_name("FILE..."), "text: .txt, .jsonl; .gz, .zst");
  add("vocab-size", po::value<int>()->required()->value_name("N"), "tokens: special ones, 256 bytes, merges");
  add("output", po::value<std::string>()->required()->value_name("FILE"), "tokenizer.json to write");
  add("json-key", po::value<std::string>()->default_value("text")->value_name("KEY"), "of .jsonl: where the text is");
  add("threads", po::value<int>()->default_value(0)->value_name("N"), "0: one a core; changes no byte of the result");
  add("overwrite", "replace the file");
}

}  // namespace

Verb TokenizerTrainVerb() {
  return {"data tokenizer-train",
          "learn a byte-level BPE vocabulary from text",
          "--input FILE... --vocab-size N --output FILE",
          "The result is a tokenizer.json with DeepSeek-V3's pre-tokenizer and special tokens, which Hugging Face\n"
          "tokenizers reads too. Held-out documents should not be in the input.\n\n"
          "Example:\n  shoestring data tokenizer-train --input corpus.jsonl --vocab-size 4096 --output tokenizer.json",
          Declare,
          "",
          Run};
}

}  // namespace shoestring
