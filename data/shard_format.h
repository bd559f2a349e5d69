// The layout of Megatron's .idx, shared by the writer and the reader.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace shoestring {

constexpr absl::string_view kIndexMagic("MMIDIDX\0\0", 9);
constexpr uint64_t kIndexVersion = 1;
constexpr int64_t kIndexHeaderBytes = 9 + 8 + 1 + 8 + 8;

// Codes of Megatron's index for the integer types that hold tokens.
enum class TokenType : uint8_t { kI16 = 3, kI32 = 4, kI64 = 5, kU16 = 8 };

}  // namespace shoestring
