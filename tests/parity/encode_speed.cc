// Times our tokenizer on one thread: encodes all texts of a file once for each line on standard input, and answers with
// the seconds it took and the number of ids; tests/parity/tokenizer_parity.py takes turns with another library.
//
//   encode_speed TOKENIZER_JSON TEXTS
//
// TEXTS: each text is its length in bytes (u32, little-endian) and its bytes.
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "data/tokenizer.h"
#include "tests/data/counted_texts.h"

namespace shoestring {
namespace {

absl::Status Run(const std::string& tokenizer_path, const std::string& texts_path) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(PosixFileSystem(), tokenizer_path));
  ASSIGN_OR_RETURN(const std::string input, ReadFile(PosixFileSystem(), texts_path));
  const std::vector<absl::string_view> texts = SplitTexts(input);
  std::string line;
  while (std::getline(std::cin, line)) {
    const int64_t start = RealClock().MonotonicNanos();
    size_t ids = 0;
    for (const absl::string_view text : texts) {
      ASSIGN_OR_RETURN(const std::vector<int32_t> encoded, tokenizer.Encode(text, {}));
      ids += encoded.size();
    }
    std::cout << static_cast<double>(RealClock().MonotonicNanos() - start) * 1e-9 << " " << ids << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: encode_speed TOKENIZER_JSON TEXTS\n", stderr);
    return 64;
  }
  const absl::Status status = shoestring::Run(argv[1], argv[2]);
  if (!status.ok()) std::fprintf(stderr, "encode_speed: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
