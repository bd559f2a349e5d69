// The spelling of bytes as printable characters that byte-level tokenizer files use (docs/formats/tokenizer.md).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace shoestring {

// "Ġthe" for " the".
std::string SpellBytes(absl::string_view bytes);

// The inverse; nullopt if `spelling` (well-formed UTF-8) has a character outside the alphabet.
std::optional<std::string> UnspellBytes(absl::string_view spelling);

// The 256 bytes in ascending order of the code points that spell them: the order of a fresh vocabulary.
std::array<uint8_t, 256> BytesInAlphabetOrder();

}  // namespace shoestring
