// The AVX-512 level of simd.h: one zmm register a value.
#pragma once

#include <immintrin.h>

#if defined(__AVX512BF16__)
#define SHOESTRING_SIMD_LEVEL avx512_bf16
#else
#define SHOESTRING_SIMD_LEVEL avx512
#endif

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

struct F32x16 {
  __m512 v;
};
using Mask = __mmask16;

inline Mask FirstN(int n) { return static_cast<Mask>((1u << n) - 1); }
inline F32x16 Zero() { return {_mm512_setzero_ps()}; }
inline F32x16 Broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32x16 LoadN(const float* p, int n) { return {_mm512_maskz_loadu_ps(FirstN(n), p)}; }
inline void Store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
inline void StoreN(float* p, F32x16 a, int n) { _mm512_mask_storeu_ps(p, FirstN(n), a.v); }

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 FusedMultiplyAdd(F32x16 a, F32x16 b, F32x16 c) { return Fma(a, b, c); }
inline F32x16 Min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 Max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 Sqrt(F32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
inline Mask Less(F32x16 a, F32x16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
inline F32x16 Select(Mask m, F32x16 a, F32x16 b) { return {_mm512_mask_blend_ps(m, b.v, a.v)}; }
inline F32x16 ShiftExponent(F32x16 t) {
  const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(0x3F800000)))};
}

inline F32x16 FromBf16Bits(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline F32x16 LoadBf16(const uint16_t* p) {
  return FromBf16Bits(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F32x16 LoadBf16N(const uint16_t* p, int n) { return FromBf16Bits(_mm256_maskz_loadu_epi16(FirstN(n), p)); }
// Bits of the nearest bf16 in the upper half of each lane; the lower half is rubbish. Integer arithmetic instead of
// vcvtneps2bf16, which flushes denormals: so every level rounds alike.
inline __m512i Bf16InUpperHalf(F32x16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
}
inline F32x16 RoundToBf16(F32x16 a) {
  return {_mm512_castsi512_ps(_mm512_and_si512(Bf16InUpperHalf(a), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))))};
}
inline __m256i ToBf16Bits(F32x16 a) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(Bf16InUpperHalf(a), 16)); }
inline void StoreBf16(uint16_t* p, F32x16 a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), ToBf16Bits(a)); }
inline void StoreBf16N(uint16_t* p, F32x16 a, int n) { _mm256_mask_storeu_epi16(p, FirstN(n), ToBf16Bits(a)); }
inline F32x16 LoadBf16PairsN(const uint16_t* p, int n) {
  const __mmask32 mask = static_cast<__mmask32>((uint64_t{1} << n) - 1);
  return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, p))};
}
// Dword i of the result holds bf16 number i of `even` (low half) and of `odd` (high half): two rows, n numbers each.
inline F32x16 InterleaveBf16N(const uint16_t* even, const uint16_t* odd, int n_even, int n_odd) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(FirstN(n_even), even));
  const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(FirstN(n_odd), odd));
  return {_mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)))};
}
// The same of two rows of floats, rounded to bf16 on the way.
inline F32x16 InterleaveAsBf16(F32x16 even, F32x16 odd) {
  const __m512i low = _mm512_srli_epi32(Bf16InUpperHalf(even), 16);
  const __m512i high = _mm512_and_si512(Bf16InUpperHalf(odd), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
  return {_mm512_castsi512_ps(_mm512_or_si512(low, high))};
}

struct I32x16 {
  __m512i v;
};
inline I32x16 AllOf(uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
inline I32x16 BitsOf(F32x16 a) { return {_mm512_castps_si512(a.v)}; }
inline F32x16 FloatOf(I32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
inline I32x16 operator+(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I32x16 operator-(I32x16 a, I32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I32x16 operator&(I32x16 a, I32x16 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline I32x16 operator|(I32x16 a, I32x16 b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int kBits>
inline I32x16 ShiftLeft(I32x16 a) {
  return {_mm512_slli_epi32(a.v, kBits)};
}
template <int kBits>
inline I32x16 ShiftRight(I32x16 a) {
  return {_mm512_srli_epi32(a.v, kBits)};
}
inline Mask Less(I32x16 a, I32x16 b) { return _mm512_cmplt_epi32_mask(a.v, b.v); }
inline I32x16 Select(Mask m, I32x16 a, I32x16 b) { return {_mm512_mask_blend_epi32(m, b.v, a.v)}; }
inline I32x16 Truncate(F32x16 a) { return {_mm512_cvttps_epi32(a.v)}; }
inline F32x16 ToFloat(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I32x16 LoadU8N(const uint8_t* p, int n) { return {_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(FirstN(n), p))}; }
inline void StoreU8N(uint8_t* p, I32x16 a, int n) {
  const __m128i bytes =
      _mm512_cvtepi32_epi8(a.v);  // in a register first: the form that stores is slow on some machines
  if (n == 16) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  _mm_mask_storeu_epi8(p, FirstN(n), bytes);
}

// Words of twelve bits each, from bytes (0, 1), (1, 2), (3, 4), (4, 5), ...
inline __m256i U12Words(const uint8_t* p) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8));  // starts four bytes early
  const __m128i order = _mm_setr_epi8(0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11);
  const __m256i words =
      _mm256_set_m128i(_mm_shuffle_epi8(high, _mm_add_epi8(order, _mm_set1_epi8(4))), _mm_shuffle_epi8(low, order));
  return _mm256_blend_epi16(_mm256_and_si256(words, _mm256_set1_epi16(0xfff)), _mm256_srli_epi16(words, 4), 0xaa);
}
inline void StoreU12Words(uint8_t* p, __m256i words) {
  const __m256i pairs = _mm256_madd_epi16(words, _mm256_set1_epi32(4096 << 16 | 1));  // even + 4096 * odd
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  const __m256i packed = _mm256_shuffle_epi8(pairs, order);
  const __m128i low = _mm256_castsi256_si128(packed), high = _mm256_extracti128_si256(packed, 1);
  __builtin_memcpy(p, &low, 12);
  __builtin_memcpy(p + 12, &high, 12);
}
inline I32x16 LoadU12(const uint8_t* p) { return {_mm512_cvtepu16_epi32(U12Words(p))}; }
inline void StoreU12(uint8_t* p, I32x16 a) { StoreU12Words(p, _mm512_cvtepi32_epi16(a.v)); }

inline float ReduceAdd(F32x16 a) {
  const __m256 v8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 v4 = _mm_add_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps(v8, 1));
  const __m128 v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));
  return _mm_cvtss_f32(_mm_add_ss(v2, _mm_movehdup_ps(v2)));
}
inline float ReduceMax(F32x16 a) {
  const __m256 v8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 v4 = _mm_max_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps(v8, 1));
  const __m128 v2 = _mm_max_ps(v4, _mm_movehl_ps(v4, v4));
  return _mm_cvtss_f32(_mm_max_ss(v2, _mm_movehdup_ps(v2)));
}

// Four rounds of exchanges: neighbours of 1, 2 (inside quarters), then quarters 1 and 2 apart.
inline void Transpose16(F32x16 rows[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  __m512 u[16];
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
      u[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      u[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  for (int j = 0; j < 4; ++j) {
    const __m512 ab_even = _mm512_shuffle_f32x4(u[j], u[j + 4], 0x88),
                 ab_odd = _mm512_shuffle_f32x4(u[j], u[j + 4], 0xDD);
    const __m512 cd_even = _mm512_shuffle_f32x4(u[j + 8], u[j + 12], 0x88);
    const __m512 cd_odd = _mm512_shuffle_f32x4(u[j + 8], u[j + 12], 0xDD);
    rows[j].v = _mm512_shuffle_f32x4(ab_even, cd_even, 0x88);
    rows[j + 8].v = _mm512_shuffle_f32x4(ab_even, cd_even, 0xDD);
    rows[j + 4].v = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0x88);
    rows[j + 12].v = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0xDD);
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
