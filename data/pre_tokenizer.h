// Cuts text into the pieces (pre-tokens) within which byte pairs are merged: a sequence of regular expressions,
// isolated.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/pre_tokenizer_regex.h"

namespace shoestring {

// DeepSeek-V3's three patterns: numbers, ideographs and kana, everything else.
std::vector<std::string> DeepSeekV3Patterns();
// The pattern of GPT-2, which `ByteLevel` applies when its `use_regex` is true.
std::string Gpt2Pattern();

// Immutable; const methods are thread-safe, each thread with its own scratch.
class PreTokenizer {
 public:
  // What one thread needs to split; reuse it, creating it costs an allocation of stack.
  struct Scratch {
    RegexScratch regex;
  };
  using Sink = absl::FunctionRef<void(absl::string_view)>;

  // Patterns as tokenizer.json spells them; none at all leaves the text whole. Errors as TranslatePattern and
  // Regex::Compile, with the number of the pattern (0, 1, ...).
  static absl::StatusOr<PreTokenizer> Create(std::vector<std::string> patterns);

  // Calls `sink` with each piece, in order; the pieces are views into `text`, none is empty, and together they are
  // `text`. Each pattern cuts every piece that the one before it left into its matches and the rests between them, and
  // sees that piece alone. `text` must be well-formed UTF-8. INVALID_ARGUMENT when a pattern explodes on this text.
  absl::Status Split(absl::string_view text, Scratch& scratch, Sink sink) const;

  const std::vector<std::string>& patterns() const { return patterns_; }

 private:
  PreTokenizer() = default;
  absl::Status SplitFrom(size_t step, absl::string_view text, Scratch& scratch, Sink sink) const;

  std::vector<std::string> patterns_;
  std::vector<Regex> steps_;
};

}  // namespace shoestring
