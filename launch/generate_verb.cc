// The verb `generate`: continues a text with a trained model.
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "data/tokenizer.h"
#include "launch/checkpoint_place.h"
#include "launch/exit_codes.h"
#include "launch/generation.h"
#include "launch/verbs.h"
#include "trainer/checkpoint/load.h"

namespace shoestring {
namespace {

struct Request {
  std::string checkpoint;
  std::string prompt;
  std::string tokenizer;  // empty: the config's
  int64_t tokens = 0;
  bool ema = false;
  int threads = 1;
  SamplingOptions sampling;
};

absl::StatusOr<Tokenizer> OpenTokenizerOf(const OpenedCheckpoint& checkpoint, const std::string& path) {
  ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(PosixFileSystem(), path));
  if (tokenizer.Fingerprint() == checkpoint.header().tokenizer_fingerprint()) return tokenizer;
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": is not the tokenizer that the model was trained with (fingerprint ", tokenizer.Fingerprint(),
      ", wanted ", checkpoint.header().tokenizer_fingerprint(), "); name that one with --tokenizer"));
}

// The logits of the tokens that a text may continue with. Rows of the vocabulary beyond the tokenizer mean nothing; of
// the special tokens only the end of the document counts: a continuation has no holes to fill in.
std::vector<float> LogitsOfText(absl::Span<const float> logits, const Tokenizer& tokenizer, int32_t eos_id) {
  std::vector<float> kept(logits.begin(), logits.begin() + tokenizer.vocab_size());
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.IsSpecial(id) && id != eos_id) kept[id] = -std::numeric_limits<float>::infinity();
  }
  return kept;
}

absl::Status Generate(const Request& request) {
  FileSystem& fs = PosixFileSystem();
  ASSIGN_OR_RETURN(const std::string path, CheckpointAt(fs, request.checkpoint));
  ASSIGN_OR_RETURN(const OpenedCheckpoint checkpoint, OpenCheckpoint(fs, path));
  ASSIGN_OR_RETURN(const std::unique_ptr<Generator> generator,
                   Generator::Load(fs, checkpoint, request.ema, request.threads));
  const config::RunConfig& config = generator->config();
  const std::string& file = request.tokenizer.empty() ? config.data().tokenizer() : request.tokenizer;
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, OpenTokenizerOf(checkpoint, file));
  absl::StatusOr<std::vector<int32_t>> prompt = tokenizer.Encode(request.prompt);
  if (!prompt.ok()) return WithContext(prompt.status(), "--prompt, which must be UTF-8");
  // In training a document follows the end of another.
  std::vector<int32_t> ids = {config.model().eos_id()};
  ids.insert(ids.end(), prompt->begin(), prompt->end());
  std::fputs(request.prompt.c_str(), stdout);
  for (int64_t i = 0; i < request.tokens; ++i) {
    const std::vector<float> logits = LogitsOfText(generator->NextLogits(ids), tokenizer, config.model().eos_id());
    const int32_t next = SampleToken(logits, request.sampling, i);
    if (next == config.model().eos_id()) break;
    ids.push_back(next);
    std::fputs(std::string(tokenizer.TokenBytes(next)).c_str(), stdout);
    std::fflush(stdout);
  }
  std::fputs("\n", stdout);
  return absl::OkStatus();
}

absl::Status CheckFlags(const Values& values, Request& request) {
  ASSIGN_OR_RETURN(request.threads, ReadThreads(values));
  if (request.tokens < 0) return absl::InvalidArgumentError("--tokens is negative; 0 only prints the prompt");
  if (!std::isfinite(request.sampling.temperature) || request.sampling.temperature < 0) {
    return absl::InvalidArgumentError("--temperature is negative or no number; 0 takes the likeliest token");
  }
  if (request.sampling.top_k < 0) return absl::InvalidArgumentError("--top-k is negative; 0 takes all tokens");
  return absl::OkStatus();
}

int Run(const Values& values) {
  Request request;
  request.checkpoint = values["checkpoint"].as<std::string>();
  request.prompt = values["prompt"].as<std::string>();
  request.tokenizer = ValueOr<std::string>(values, "tokenizer", "");
  request.tokens = values["tokens"].as<int64_t>();
  request.ema = values.count("ema") > 0;
  request.sampling = {values["temperature"].as<double>(), values["top-k"].as<int64_t>(), values["seed"].as<uint64_t>()};
  const absl::Status flags = CheckFlags(values, request);
  if (!flags.ok()) return Fail(Area::kUsage, flags);
  const absl::Status status = Generate(request);
  return status.ok() ? static_cast<int>(ExitCode::kDone) : Fail(Area::kData, status);
}

void Declare(po::options_description& flags) {
  auto add = flags.add_options();
  add("checkpoint", po::value<std::string>()->required()->value_name("DIR"), "a checkpoint, or a run: its newest one");
  add("prompt", po::value<std::string>()->required()->value_name("TEXT"), "the text to continue; may be empty");
  add("tokens", po::value<int64_t>()->default_value(100)->value_name("N"),
      "at most so many; the end of a document ends it");
  add("temperature", po::value<double>()->default_value(0.8, "0.8")->value_name("X"), "0: always the likeliest token");
  add("top-k", po::value<int64_t>()->default_value(0)->value_name("K"), "among the K likeliest tokens; 0: among all");
  add("seed", po::value<uint64_t>()->default_value(0)->value_name("N"), "of the choice; the same gives the same text");
  add("ema", "with the moving average of the weights");
  add("tokenizer", po::value<std::string>()->value_name("FILE"), "absent: the config's data.tokenizer");
  DeclareThreads(flags, "0: one a core; changes no token");
}

}  // namespace

Verb GenerateVerb() {
  return {"generate",
          "continue a text with a trained model",
          "--checkpoint DIR --prompt TEXT [--tokens N]",
          "Example:\n  shoestring generate --checkpoint runs/quickstart --prompt 'A horse is' --tokens 60",
          Declare,
          "",
          Run};
}

}  // namespace shoestring
