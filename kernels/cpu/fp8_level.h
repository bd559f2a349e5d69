// The small formats of kernels/e4m3.h, sixteen values at a time: the same bits as the scalar definition there.
//
// Like every *_level.h: compiled once a level, in that level's namespace. Decoding neither reads nor makes a denormal
// number, which would cost a hundred cycles on some machines.
#pragma once

#include "kernels/cpu/simd.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

template <int kExponentBits, int kFraction, int kLargest>
struct SmallFormat {
  static constexpr int kFractionBits = kFraction;
  static constexpr int kSignShift = kExponentBits + kFraction;
  static constexpr int kBias = (1 << (kExponentBits - 1)) - 1;
  static constexpr uint32_t kLargestCode = kLargest;  // without sign
  static constexpr uint32_t kNanCode = (1u << kSignShift) - 1;
  // Bits of f32 numbers: the format's smallest normal number and its largest one.
  static constexpr uint32_t kSmallestNormal = static_cast<uint32_t>(128 - kBias) << 23;
  static constexpr uint32_t kLargestBits =
      (kLargestCode << (23 - kFraction)) + (static_cast<uint32_t>(127 - kBias) << 23);
};
using E4M3Format = SmallFormat<4, 3, 0x7e>;
using E5M2Format = SmallFormat<5, 2, 0x7b>;
using E5M6Format = SmallFormat<5, 6, 0x7bf>;

// The numbers that codes stand for; a NaN code becomes a NaN of its sign.
template <typename Format>
inline F32x16 DecodeSmall(I32x16 code) {
  const I32x16 magnitude = code & AllOf(Format::kNanCode);
  const I32x16 sign = ShiftLeft<31 - Format::kSignShift>(code & AllOf(1u << Format::kSignShift));
  const I32x16 fields = ShiftLeft<23 - Format::kFractionBits>(magnitude);
  const I32x16 smallest = AllOf(Format::kSmallestNormal);
  // A subnormal is what its fraction adds to the smallest normal number.
  const I32x16 subnormal = BitsOf(FloatOf(fields + smallest) - FloatOf(smallest));
  const I32x16 normal = fields + AllOf(static_cast<uint32_t>(127 - Format::kBias) << 23);
  const I32x16 finite = Select(Less(magnitude, AllOf(1u << Format::kFractionBits)), subnormal, normal);
  return FloatOf(sign | Select(Less(AllOf(Format::kLargestCode), magnitude), AllOf(0x7fc00000u), finite));
}

// The codes nearest to v, ties to even; saturates. Every NaN becomes kNanCode.
//
// With 2^e the power of two below |v|, or the smallest normal number if that is larger, the code is the number of steps
// of 2^(e - fraction bits) in |v|, plus e's distance from the least exponent in its field; a carry does what it should.
template <typename Format>
inline I32x16 EncodeSmall(F32x16 v) {
  constexpr int kDropped = 23 - Format::kFractionBits;
  const I32x16 bits = BitsOf(v);
  const I32x16 magnitude = bits & AllOf(0x7fffffffu);
  const F32x16 limited = Min(FloatOf(magnitude), FloatOf(AllOf(Format::kLargestBits)));
  const I32x16 power =
      BitsOf(Max(FloatOf(BitsOf(limited) & AllOf(0x7f800000u)), FloatOf(AllOf(Format::kSmallestNormal))));
  // Adding a number whose last place is the step lets the hardware round.
  const F32x16 last_place = FloatOf(power + AllOf(static_cast<uint32_t>(kDropped) << 23));
  const I32x16 steps = BitsOf(limited + last_place) - power;
  constexpr uint32_t kLeast = (static_cast<uint32_t>(kDropped) << 23) + (Format::kSmallestNormal >> kDropped);
  const I32x16 code = steps + (ShiftRight<kDropped>(power) - AllOf(kLeast));
  const I32x16 sign = ShiftRight<31 - Format::kSignShift>(bits) & AllOf(1u << Format::kSignShift);
  return Select(Less(AllOf(0x7f800000u), magnitude), AllOf(Format::kNanCode), code | sign);
}

#if defined(__AVX512BF16__)
// DecodeSmall in bf16, which holds every e4m3 and e5m2 value: 32 codes, one in each 16 bits.
template <typename Format>
inline __m512i DecodeSmallToBf16(__m512i code) {
  constexpr int kUp = 7 - Format::kFractionBits;
  const __m512i magnitude = _mm512_and_si512(code, _mm512_set1_epi16(Format::kNanCode));
  const __m512i sign = _mm512_slli_epi16(_mm512_and_si512(code, _mm512_set1_epi16(0x80)), 8);
  // Subnormal m has the bits of the number m * 2^(1 - bias - fraction bits); entry m of the table.
  constexpr short kUnit = static_cast<short>((128 - Format::kBias - Format::kFractionBits) << 7);
  const __m512i table = _mm512_castsi128_si512(
      _mm_setr_epi16(0, kUnit, kUnit + 0x80, kUnit + 0xc0, kUnit + 0x100, kUnit + 0x120, kUnit + 0x140, kUnit + 0x160));
  __m512i out = _mm512_add_epi16(_mm512_slli_epi16(magnitude, kUp), _mm512_set1_epi16((127 - Format::kBias) << 7));
  const __mmask32 small = _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(1 << Format::kFractionBits));
  out = _mm512_mask_permutexvar_epi16(out, small, magnitude, table);
  const __mmask32 nan = _mm512_cmpgt_epu16_mask(magnitude, _mm512_set1_epi16(Format::kLargestCode));
  out = _mm512_mask_mov_epi16(out, nan, _mm512_set1_epi16(0x7fc0));
  return _mm512_or_si512(out, sign);
}
#endif

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
