// What preparation needs of a tokenizer, so that it can be tested with a simpler one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/rng.h"
#include "data/tokenizer.h"

namespace shoestring {

// Both functions are called by several threads at once. Ids that a tokenizer lacks are -1.
struct TokenEncoder {
  // Ids of UTF-8 text, each in 0 .. vocab_size-1; no special token, whatever the text says.
  std::function<absl::StatusOr<std::vector<int32_t>>(absl::string_view text)> encode;
  // Tokenizer::SplitMergedTokens.
  std::function<std::vector<int32_t>(absl::Span<const int32_t> ids, double rate, const Rng& rng)> split_merged;
  std::string fingerprint;
  int64_t vocab_size = 0;
  int32_t eos = -1;
  int32_t fim_begin = -1, fim_hole = -1, fim_end = -1;
};

// `tokenizer` must outlive the result.
TokenEncoder EncoderOf(const Tokenizer& tokenizer);

}  // namespace shoestring
