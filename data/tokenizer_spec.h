// What a tokenizer is, as plain data: the common ground of the reader, the writer, the trainer and the encoder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/bpe.h"

namespace shoestring {

struct TokenizerToken {
  std::string bytes;  // what the token decodes to; not empty
  // Added tokens are looked for in the text before it is cut into words; special ones only where the caller allows it.
  bool added = false;
  bool special = false;
  bool normalized = false;  // of an added token: looked for after those without this flag
  bool in_model = true;     // false: the file lists it in added_tokens alone
};

struct TokenizerSpec {
  std::vector<TokenizerToken> tokens;  // by id; those with in_model come first
  std::vector<BpeMerge> merges;        // in order of precedence
  std::vector<std::string> patterns;   // of the pre-tokenizer, as tokenizer.json spells them
  bool ignore_merges = false;          // a piece that is itself a token of the model is taken whole
};

// DeepSeek-V3's: begin of sentence, end of sentence, padding, and the three of fill-in-the-middle (hole, begin, end).
std::vector<std::string> DeepSeekV3SpecialTokens();

inline constexpr int64_t kMaxTokenizerJsonBytes = int64_t{512} << 20;

// Reads a tokenizer.json (docs/formats/tokenizer.md). INVALID_ARGUMENT "model.merges[12]: ..." for whatever is
// malformed or not supported; the result keeps every promise that the comments above make.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view json);

// Writes one that ParseTokenizerJson and Hugging Face `tokenizers` read. A pure function of the spec.
std::string PrintTokenizerJson(const TokenizerSpec& spec);

// SHA-256 in hexadecimal of the spec's meaning, as docs/formats/tokenizer.md defines it.
std::string FingerprintTokenizer(const TokenizerSpec& spec);

}  // namespace shoestring
