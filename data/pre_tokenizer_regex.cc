// The only source that knows PCRE2.
#include "data/pre_tokenizer_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace shoestring {
namespace {

constexpr size_t kInitialStackBytes = size_t{64} << 10;
constexpr size_t kMaxStackBytes = size_t{8} << 20;

std::string CompileError(int code) {
  PCRE2_UCHAR message[256];
  pcre2_get_error_message(code, message, sizeof(message));
  return reinterpret_cast<const char*>(message);
}

pcre2_code* CompileCode(const std::string& pattern, int* error, PCRE2_SIZE* offset) {
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  CHECK(context != nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);  // '.' excludes LF alone, whatever the library was built for
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                                   error, offset, context);
  pcre2_compile_context_free(context);
  return code;
}

}  // namespace

RegexScratch::RegexScratch()
    : data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      stack_(pcre2_jit_stack_create(kInitialStackBytes, kMaxStackBytes, nullptr)) {
  CHECK(data_ != nullptr);
  CHECK(context_ != nullptr);
  // Without JIT support in the library there is no stack, and pcre2_match interprets.
  if (stack_ != nullptr) pcre2_jit_stack_assign(context_, nullptr, stack_);
}

RegexScratch::~RegexScratch() {
  pcre2_jit_stack_free(stack_);
  pcre2_match_context_free(context_);
  pcre2_match_data_free(data_);
}

absl::StatusOr<Regex> Regex::Compile(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = CompileCode(pattern, &error, &offset);
  if (code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("pattern does not compile: ", CompileError(error), " (byte ", offset,
                                                   " of '", absl::Utf8SafeCEscape(pattern), "')"));
  }
  Regex regex;
  regex.pattern_ = pattern;
  regex.code_ =
      std::shared_ptr<const pcre2_code>(code, [](const pcre2_code* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); });
  uint32_t matches_empty = 0;
  CHECK_EQ(pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty), 0);
  if (matches_empty != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern '", absl::Utf8SafeCEscape(pattern), "' can match the empty text"));
  }
  regex.jit_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  return regex;
}

FindResult Regex::Find(absl::string_view text, size_t start, RegexScratch& scratch, size_t* begin, size_t* end) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const int found =
      jit_ ? pcre2_jit_match(code_.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK, scratch.data_,
                             scratch.context_)
           : pcre2_match(code_.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK, scratch.data_, scratch.context_);
  if (found == PCRE2_ERROR_NOMATCH) return FindResult::kNone;
  if (found < 0) return FindResult::kFailed;
  // 0 says that there was no room for the groups' ranges; the whole match is always there.
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.data_);
  *begin = range[0];
  *end = range[1];
  return FindResult::kFound;
}

absl::Status Regex::FailureStatus() const {
  return absl::InvalidArgumentError(absl::StrCat("the tokenizer's pattern '", absl::Utf8SafeCEscape(pattern_),
                                                 "' exhausted its stack or steps on this text; simplify the pattern, "
                                                 "or shorten the text"));
}

}  // namespace shoestring
