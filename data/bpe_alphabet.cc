// The byte alphabet, computed by its rule.
#include "data/bpe_alphabet.h"

#include <algorithm>
#include <numeric>

#include "data/utf8.h"

namespace shoestring {
namespace {

constexpr bool IsPrintable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// A byte stands for itself if it is printable in Latin-1; the others are counted up from U+0100.
constexpr std::array<char32_t, 256> MakeCodePoints() {
  std::array<char32_t, 256> result{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) result[byte] = IsPrintable(byte) ? static_cast<char32_t>(byte) : next++;
  return result;
}

constexpr char32_t kCodePointEnd = 0x144;

constexpr std::array<int16_t, kCodePointEnd> MakeBytes() {
  std::array<int16_t, kCodePointEnd> result{};
  for (int16_t& byte : result) byte = -1;
  const std::array<char32_t, 256> code_points = MakeCodePoints();
  for (int byte = 0; byte < 256; ++byte) result[code_points[byte]] = static_cast<int16_t>(byte);
  return result;
}

constexpr std::array<char32_t, 256> kCodePoints = MakeCodePoints();
constexpr std::array<int16_t, kCodePointEnd> kBytes = MakeBytes();

}  // namespace

std::string SpellBytes(absl::string_view bytes) {
  std::string spelling;
  spelling.reserve(bytes.size() * 2);
  for (const char byte : bytes) AppendUtf8(kCodePoints[static_cast<uint8_t>(byte)], &spelling);
  return spelling;
}

std::optional<std::string> UnspellBytes(absl::string_view spelling) {
  std::string bytes;
  for (size_t offset = 0; offset < spelling.size();) {
    const char32_t c = NextCodePoint(spelling, &offset);
    if (c >= kCodePointEnd || kBytes[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kBytes[c]));
  }
  return bytes;
}

std::array<uint8_t, 256> BytesInAlphabetOrder() {
  std::array<uint8_t, 256> bytes;
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  std::sort(bytes.begin(), bytes.end(), [](uint8_t a, uint8_t b) { return kCodePoints[a] < kCodePoints[b]; });
  return bytes;
}

}  // namespace shoestring
