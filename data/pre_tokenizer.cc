// The splitting of text into pre-tokens.
#include "data/pre_tokenizer.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/pre_tokenizer_pattern.h"

namespace shoestring {
namespace {
constexpr size_t kMaxPatterns = 16;  // Split() recurses once a pattern
}  // namespace

std::vector<std::string> DeepSeekV3Patterns() {
  return {
      R"(\p{N}{1,3})",
      "[一-龥぀-ゟ゠-ヿ]+",
      R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)re"
      R"re(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re",
  };
}

std::string Gpt2Pattern() { return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"; }

absl::StatusOr<PreTokenizer> PreTokenizer::Create(std::vector<std::string> patterns) {
  if (patterns.size() > kMaxPatterns) {
    return absl::InvalidArgumentError(
        absl::StrCat(patterns.size(), " Splits; at most ", kMaxPatterns, " are supported"));
  }
  PreTokenizer result;
  for (size_t i = 0; i < patterns.size(); ++i) {
    absl::StatusOr<std::string> translated = TranslatePattern(patterns[i]);
    if (!translated.ok()) return WithContext(translated.status(), absl::StrCat("Split ", i));
    absl::StatusOr<Regex> regex = Regex::Compile(*translated);
    if (!regex.ok()) return WithContext(regex.status(), absl::StrCat("Split ", i));
    result.steps_.push_back(*std::move(regex));
  }
  result.patterns_ = std::move(patterns);
  return result;
}

absl::Status PreTokenizer::Split(absl::string_view text, Scratch& scratch, Sink sink) const {
  return SplitFrom(0, text, scratch, sink);
}

absl::Status PreTokenizer::SplitFrom(size_t step, absl::string_view text, Scratch& scratch, Sink sink) const {
  if (text.empty()) return absl::OkStatus();
  if (step == steps_.size()) {
    sink(text);
    return absl::OkStatus();
  }
  size_t position = 0, begin = 0, end = 0;
  while (position < text.size()) {
    const FindResult found = steps_[step].Find(text, position, scratch.regex, &begin, &end);
    if (found == FindResult::kFailed) return steps_[step].FailureStatus();
    if (found == FindResult::kNone) break;
    RETURN_IF_ERROR(SplitFrom(step + 1, text.substr(position, begin - position), scratch, sink));
    RETURN_IF_ERROR(SplitFrom(step + 1, text.substr(begin, end - begin), scratch, sink));
    position = end;
  }
  return SplitFrom(step + 1, text.substr(position), scratch, sink);
}

}  // namespace shoestring
