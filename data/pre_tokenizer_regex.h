// A compiled PCRE2 pattern and the scratch memory that one thread needs to run it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;
struct pcre2_real_jit_stack_8;

namespace shoestring {

// What a match writes to; one thread at a time.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  pcre2_real_match_data_8* data_;
  pcre2_real_match_context_8* context_;
  pcre2_real_jit_stack_8* stack_;
};

enum class FindResult { kFound, kNone, kFailed };

// Immutable; const methods are thread-safe, each thread with its own scratch.
class Regex {
 public:
  // `pattern` in PCRE2's syntax, compiled with UTF and Unicode properties, and to machine code where the CPU allows it.
  // INVALID_ARGUMENT with PCRE2's message and offset, or if the pattern can match the empty string.
  static absl::StatusOr<Regex> Compile(const std::string& pattern);

  // The first match in `text` at or after `start`; look-behind sees what lies before `start`. `text` must be
  // well-formed UTF-8 and `start` on a character. kFailed: the pattern exhausted its stack or its steps; see
  // FailureStatus().
  FindResult Find(absl::string_view text, size_t start, RegexScratch& scratch, size_t* begin, size_t* end) const;

  // INVALID_ARGUMENT: pattern and text do not go together.
  absl::Status FailureStatus() const;

 private:
  Regex() = default;
  std::string pattern_;
  std::shared_ptr<const pcre2_real_code_8> code_;
  bool jit_ = false;
};

}  // namespace shoestring
