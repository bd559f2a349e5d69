// The small floating-point formats, one value at a time: the definition that vector code must agree with bit for bit.
//
// E4M3 and E5M2: OCP 8-bit floating point specification. E5M6: 12 bits, bias 15 (V3 report, section 3.3.3), the largest
// exponent kept for NaN as in E5M2. Encoding rounds to nearest even and saturates at the largest finite value,
// infinities too; every NaN becomes the one with all bits below the sign set, sign clear.
#pragma once

#include <bit>
#include <cstdint>

namespace shoestring {

// 1 sign bit, kExponentBits, kFractionBits; subnormals; codes above `kLargest` (without sign) are NaN or infinity.
template <int kExponentBits, int kFractionBits, int kBias, uint32_t kLargestCode>
struct SmallFloat {
  static constexpr int kSignShift = kExponentBits + kFractionBits;
  static constexpr uint32_t kNanCode = (1u << kSignShift) - 1;
  static constexpr float kLargest =
      static_cast<float>((1u << kFractionBits) + kLargestCode % (1u << kFractionBits)) *
      std::bit_cast<float>(static_cast<uint32_t>(127 + (kLargestCode >> kFractionBits) - kBias - kFractionBits) << 23);

  static constexpr uint32_t Encode(float value) {
    constexpr float kLargestValue = kLargest;  // of its own: device code has no static members
    constexpr uint32_t kLargestBits = std::bit_cast<uint32_t>(kLargestValue);
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t sign = bits >> 31 << kSignShift;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return kNanCode;
    magnitude = magnitude < kLargestBits ? magnitude : kLargestBits;
    constexpr uint32_t kSmallestNormal = static_cast<uint32_t>(128 - kBias) << 23;
    if (magnitude < kSmallestNormal) {
      // Adding a number whose last place is the format's smallest step lets the hardware round.
      constexpr uint32_t kStepBits = static_cast<uint32_t>(128 - kBias - kFractionBits + 23) << 23;
      const float rounded = std::bit_cast<float>(magnitude) + std::bit_cast<float>(kStepBits);
      return sign | (std::bit_cast<uint32_t>(rounded) - kStepBits);
    }
    constexpr int kDropped = 23 - kFractionBits;
    const uint32_t odd = magnitude >> kDropped & 1;
    magnitude += (1u << (kDropped - 1)) - 1 + odd;
    return sign | ((magnitude >> kDropped) - (static_cast<uint32_t>(127 - kBias) << kFractionBits));
  }

  static constexpr float Decode(uint32_t code) {
    const uint32_t sign = code >> kSignShift << 31;
    const uint32_t magnitude = code & kNanCode;
    if (magnitude > kLargestCode) return std::bit_cast<float>(sign | 0x7fc00000u);
    if (magnitude >> kFractionBits == 0) {
      constexpr float kStep = std::bit_cast<float>(static_cast<uint32_t>(128 - kBias - kFractionBits) << 23);
      return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(magnitude) * kStep));
    }
    return std::bit_cast<float>(sign |
                                ((magnitude << (23 - kFractionBits)) + (static_cast<uint32_t>(127 - kBias) << 23)));
  }
};

using E4M3 = SmallFloat<4, 3, 7, 0x7e>;    // largest 448; 0x7f is NaN; no infinity
using E5M2 = SmallFloat<5, 2, 15, 0x7b>;   // largest 57344
using E5M6 = SmallFloat<5, 6, 15, 0x7bf>;  // largest 65024

inline uint8_t EncodeE4M3(float value) { return static_cast<uint8_t>(E4M3::Encode(value)); }
inline float DecodeE4M3(uint8_t code) { return E4M3::Decode(code); }

}  // namespace shoestring
