// UTF-8 validation, decoding and encoding.
#include "data/utf8.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace shoestring {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080;

uint8_t ByteAt(absl::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

// Length of the well-formed sequence at `i` (its lead is not ASCII), or 0. Table 3-7 of the Unicode standard.
size_t SequenceLength(absl::string_view text, size_t i) {
  const uint8_t lead = ByteAt(text, i);
  size_t length = 0;
  uint8_t low = 0x80, high = 0xBF;  // bounds of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  }
  if (length == 0 || i + length > text.size()) return 0;
  if (ByteAt(text, i + 1) < low || ByteAt(text, i + 1) > high) return 0;
  for (size_t k = 2; k < length; ++k) {
    if ((ByteAt(text, i + k) & 0xC0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

size_t FindInvalidUtf8(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight = 0;
    while (i + 8 <= text.size()) {
      std::memcpy(&eight, text.data() + i, 8);
      if (eight & kHighBits) break;
      i += 8;
    }
    if (i >= text.size()) break;
    if (ByteAt(text, i) < 0x80) {
      ++i;
      continue;
    }
    const size_t length = SequenceLength(text, i);
    if (length == 0) return i;
    i += length;
  }
  return text.size();
}

absl::Status CheckUtf8(absl::string_view text) {
  const size_t bad = FindInvalidUtf8(text);
  if (bad == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("invalid UTF-8 at byte ", bad, " (0x", absl::Hex(ByteAt(text, bad), absl::kZeroPad2), ")"));
}

char32_t NextCodePoint(absl::string_view text, size_t* offset) {
  const uint8_t lead = ByteAt(text, (*offset)++);
  if (lead < 0x80) return lead;
  const int continuations = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  char32_t code_point = lead & (0x3F >> continuations);
  for (int i = 0; i < continuations; ++i) code_point = (code_point << 6) | (ByteAt(text, (*offset)++) & 0x3F);
  return code_point;
}

void AppendUtf8(char32_t code_point, std::string* out) {
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
    return;
  }
  const int continuations = code_point >= 0x10000 ? 3 : code_point >= 0x800 ? 2 : 1;
  const int lead_mark = 0xF0 << (3 - continuations);
  out->push_back(static_cast<char>((lead_mark & 0xFF) | (code_point >> (6 * continuations))));
  for (int i = continuations - 1; i >= 0; --i) {
    out->push_back(static_cast<char>(0x80 | ((code_point >> (6 * i)) & 0x3F)));
  }
}

}  // namespace shoestring
