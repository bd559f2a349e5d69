// The form in which tests/parity/tokenizer_parity.py hands over texts.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/check.h"

namespace shoestring {

// Views of `input`'s texts; each is its length in bytes (u32, little-endian) and its bytes.
inline std::vector<absl::string_view> SplitTexts(absl::string_view input) {
  std::vector<absl::string_view> texts;
  while (!input.empty()) {
    CHECK_GE(input.size(), size_t{4});
    uint32_t size = 0;
    for (int i = 0; i < 4; ++i) size |= static_cast<uint32_t>(static_cast<uint8_t>(input[i])) << (8 * i);
    CHECK_GE(input.size() - 4, size_t{size});
    texts.push_back(input.substr(4, size));
    input.remove_prefix(4 + size);
  }
  return texts;
}

}  // namespace shoestring
