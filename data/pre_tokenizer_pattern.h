// Translates the regular expressions of tokenizer.json, written for another engine, to PCRE2, or refuses them by name.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shoestring {

// PCRE2's spelling of `pattern`. Accepts only what means the same in both engines (the list is in
// docs/formats/tokenizer.md); otherwise INVALID_ARGUMENT "pattern byte 7: '\w' ...".
absl::StatusOr<std::string> TranslatePattern(absl::string_view pattern);

}  // namespace shoestring
