// Our side of tests/parity/tokenizer_parity.py: encodes or learns from texts on standard input, answers on standard
// output.
//
//   tokenizer_parity_tool encode TOKENIZER_JSON plain|special   texts in, lists of ids out
//   tokenizer_parity_tool train VOCAB_SIZE THREADS              texts in, a tokenizer.json out
//
// A text is its length in bytes (u32, little-endian) and its bytes; a list of ids is their number (u32) and the ids
// (i32).
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "data/bpe_train.h"
#include "data/tokenizer.h"
#include "tests/data/counted_texts.h"

namespace shoestring {
namespace {

void WriteNumber(uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) std::cout.put(static_cast<char>(value >> shift));
}

absl::Status RunEncode(const std::string& path, bool allow_special, absl::string_view input) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(PosixFileSystem(), path));
  for (const absl::string_view text : SplitTexts(input)) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.Encode(text, {.allow_special = allow_special}));
    WriteNumber(static_cast<uint32_t>(ids.size()));
    for (const int32_t id : ids) WriteNumber(static_cast<uint32_t>(id));
  }
  return absl::OkStatus();
}

absl::Status RunTrain(int vocab_size, int threads, absl::string_view input) {
  ASSIGN_OR_RETURN(const PreTokenizer pre_tokenizer, PreTokenizer::Create(DeepSeekV3Patterns()));
  WordCounter counter(&pre_tokenizer, threads);
  RETURN_IF_ERROR(counter.Add(SplitTexts(input)));
  ASSIGN_OR_RETURN(const TokenizerSpec spec, TrainBpe(counter.counts(), {.vocab_size = vocab_size}));
  std::cout << PrintTokenizerJson(spec);
  return absl::OkStatus();
}

absl::Status Run(const std::vector<std::string>& arguments) {
  if (arguments.size() != 3) return absl::InvalidArgumentError("three arguments are needed");
  const std::string input{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  if (arguments[0] == "encode") return RunEncode(arguments[1], arguments[2] == "special", input);
  int vocab_size = 0, threads = 0;
  if (arguments[0] != "train" || !absl::SimpleAtoi(arguments[1], &vocab_size) ||
      !absl::SimpleAtoi(arguments[2], &threads) || threads < 1) {
    return absl::InvalidArgumentError("encode FILE plain|special, or train VOCAB_SIZE THREADS");
  }
  return RunTrain(vocab_size, threads, input);
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  const absl::Status status = shoestring::Run({argv + 1, argv + argc});
  if (!status.ok()) std::cerr << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
