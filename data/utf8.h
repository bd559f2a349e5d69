// UTF-8 as the tokenizer needs it: strict validation with the offset of the first fault, decoding and encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shoestring {

// Offset of the first byte that does not belong to well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates,
// nothing above U+10FFFF, no truncated sequence), or text.size() when all of it is well-formed.
size_t FindInvalidUtf8(absl::string_view text);

// OK, or INVALID_ARGUMENT "invalid UTF-8 at byte 17 (0xC3)".
absl::Status CheckUtf8(absl::string_view text);

// The code point that starts at `text[*offset]`; advances *offset past it. `text` must be well-formed.
char32_t NextCodePoint(absl::string_view text, size_t* offset);

void AppendUtf8(char32_t code_point, std::string* out);

}  // namespace shoestring
