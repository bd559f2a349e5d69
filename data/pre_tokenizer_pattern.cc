// The translator of tokenizer.json patterns: one pass over the pattern, with one bit of state (inside a class or not).
#include "data/pre_tokenizer_pattern.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/utf8.h"

namespace shoestring {
namespace {

constexpr std::array<absl::string_view, 37> kGeneralCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn", "Cs"};
constexpr std::array<absl::string_view, 7> kGroups = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : rest_(pattern), size_(pattern.size()) {}

  absl::StatusOr<std::string> Run() {
    while (!rest_.empty()) {
      if (rest_[0] == '\\') {
        RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        RETURN_IF_ERROR(ClassMember());
      } else {
        RETURN_IF_ERROR(Item());
      }
    }
    if (in_class_) return Refuse("a class '[' without its ']'");
    return std::move(out_);
  }

 private:
  absl::Status Refuse(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("pattern byte ", size_ - rest_.size(), ": ", what));
  }

  // Copies the next `count` bytes as they are.
  void Take(size_t count) {
    out_.append(rest_.data(), count);
    rest_.remove_prefix(count);
  }

  void Replace(size_t count, absl::string_view text) {
    absl::StrAppend(&out_, text);
    rest_.remove_prefix(count);
  }

  absl::Status Escape() {
    if (rest_.size() < 2) return Refuse("a backslash at the end");
    const char c = rest_[1];
    if (c == 'p' || c == 'P') return Property();
    if (c == 'x' || c == 'u') return CodePoint();
    // PCRE2's \s takes U+180E, which lost White_Space in Unicode 6.3.
    if (c == 's' || c == 'S') {
      Replace(2, c == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
      return absl::OkStatus();
    }
    if (absl::ascii_isalnum(c) && !absl::StrContains("dDnrtf", c)) {
      return Refuse(
          absl::StrCat("the escape '\\", rest_.substr(1, 1), "' differs between engines and is not supported"));
    }
    if (static_cast<unsigned char>(c) >= 0x80) return Refuse("a backslash before a character beyond ASCII");
    Take(2);
    return absl::OkStatus();
  }

  absl::Status Property() {
    const size_t close = rest_.find('}');
    if (rest_.size() < 3 || rest_[2] != '{' || close == absl::string_view::npos) {
      return Refuse("a property must be written as \\p{Name}");
    }
    const absl::string_view name = rest_.substr(3, close - 3);
    if (std::find(kGeneralCategories.begin(), kGeneralCategories.end(), name) == kGeneralCategories.end()) {
      return Refuse(absl::StrCat("the property '", name, "' is not a general category (L, Lu, ... Zs)"));
    }
    Take(close + 1);
    return absl::OkStatus();
  }

  // \x{1F600} or \u3040.
  absl::Status CodePoint() {
    const bool braces = rest_[1] == 'x';
    const size_t begin = braces ? 3 : 2;
    const size_t end = braces ? rest_.find('}') : 6;
    if ((braces && (rest_.size() < 3 || rest_[2] != '{')) || end == absl::string_view::npos || end > rest_.size()) {
      return Refuse("a code point must be written as \\x{1F600} or \\u3040");
    }
    const absl::string_view digits = rest_.substr(begin, end - begin);
    if (digits.empty() || digits.size() > 6 || !std::all_of(digits.begin(), digits.end(), absl::ascii_isxdigit)) {
      return Refuse(absl::StrCat("'", digits, "' is not a code point in hexadecimal"));
    }
    Replace(braces ? end + 1 : end, absl::StrCat("\\x{", digits, "}"));
    return absl::OkStatus();
  }

  absl::Status ClassMember() {
    if (rest_[0] == '[') return Refuse("'[' within a class; write '\\['");
    if (absl::StartsWith(rest_, "&&")) return Refuse("'&&' within a class is not supported");
    if (rest_[0] == ']') in_class_ = false;
    Take(1);
    return absl::OkStatus();
  }

  absl::Status Item() {
    switch (rest_[0]) {
      case '[':
        in_class_ = true;
        Take(absl::StartsWith(rest_, "[^") ? 2 : 1);
        if (absl::StartsWith(rest_, "]")) return Refuse("an empty class; write '\\]' for the bracket");
        return absl::OkStatus();
      case '(': return Group();
      case '{': return Counted();
      case '?':
      case '*':
      case '+': return Quantifier();
      case '^':
      case '$':
        return Refuse(
            absl::StrCat("the anchor '", rest_.substr(0, 1), "' differs between engines and is not supported"));
      default: Take(1); return absl::OkStatus();
    }
  }

  absl::Status Group() {
    if (!absl::StartsWith(rest_, "(?")) {
      if (absl::StartsWith(rest_, "(*")) return Refuse("a verb '(*' is not supported");
      Take(1);
      return absl::OkStatus();
    }
    for (const absl::string_view group : kGroups) {
      if (absl::StartsWith(rest_, group)) {
        Take(group.size());
        return absl::OkStatus();
      }
    }
    return Refuse("this kind of group '(?' is not supported");
  }

  // One of ? * + and an optional second sign: lazy '?' or possessive '+'.
  absl::Status Quantifier() {
    Take(1);
    if (absl::StartsWith(rest_, "?") || absl::StartsWith(rest_, "+")) Take(1);
    return NoFurtherQuantifier();
  }

  // {m}, {m,} or {m,n}. A sign after it means different things in different engines.
  absl::Status Counted() {
    const size_t close = rest_.find('}');
    const absl::string_view inside = close == absl::string_view::npos ? "" : rest_.substr(1, close - 1);
    const size_t digits = std::min(inside.find_first_not_of("0123456789"), inside.size());
    const absl::string_view tail = inside.substr(digits);
    const bool well_formed =
        digits > 0 &&
        (tail.empty() || (tail[0] == ',' && std::all_of(tail.begin() + 1, tail.end(), absl::ascii_isdigit)));
    if (!well_formed) return Refuse("'{' that is no quantifier; write '\\{'");
    Take(close + 1);
    return NoFurtherQuantifier();
  }

  absl::Status NoFurtherQuantifier() const {
    if (!rest_.empty() && absl::StrContains("?*+{", rest_[0])) return Refuse("a quantifier upon a quantifier");
    return absl::OkStatus();
  }

  absl::string_view rest_;
  size_t size_;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslatePattern(absl::string_view pattern) {
  RETURN_IF_ERROR(WithContext(CheckUtf8(pattern), "pattern"));
  return Translator(pattern).Run();
}

}  // namespace shoestring
