// JSON with the strictness that a file from elsewhere deserves: bounded depth, no repeated keys, nothing left unread.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace shoestring {

// The one value that `text` says. INVALID_ARGUMENT, in one short line, for a syntax error (with line and column),
// invalid UTF-8 and numbers beyond a double among them; for a key that appears twice in one object; for nesting deeper
// than 64; for a zero byte or a byte-order mark. Stops at the first fault.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view text);

}  // namespace shoestring
