// The AVX2 + FMA level of simd.h: two ymm registers a value.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define SHOESTRING_SIMD_LEVEL avx2

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

struct F32x16 {
  __m256 lo, hi;
};
using Mask = F32x16;  // all bits of a lane set or clear

inline Mask FirstN(int n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes)),
          _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lanes))};
}
inline F32x16 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F32x16 Broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F32x16 LoadN(const float* p, int n) {
  if (n == 16) return Load(p);
  const Mask m = FirstN(n);
  return {_mm256_maskload_ps(p, _mm256_castps_si256(m.lo)), _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.hi))};
}
inline void Store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline void StoreN(float* p, F32x16 a, int n) {
  if (n == 16) return Store(p, a);
  const Mask m = FirstN(n);
  _mm256_maskstore_ps(p, _mm256_castps_si256(m.lo), a.lo);
  _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.hi), a.hi);
}

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 FusedMultiplyAdd(F32x16 a, F32x16 b, F32x16 c) { return Fma(a, b, c); }
inline F32x16 Min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline F32x16 Max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F32x16 Sqrt(F32x16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline Mask Less(F32x16 a, F32x16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
inline F32x16 Select(Mask m, F32x16 a, F32x16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}
inline __m256 ShiftExponent8(__m256 t) {
  const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(0x3F800000)));
}
inline F32x16 ShiftExponent(F32x16 t) { return {ShiftExponent8(t.lo), ShiftExponent8(t.hi)}; }

inline F32x16 LoadBf16(const uint16_t* p) {
  const __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i hi = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}
inline F32x16 LoadBf16N(const uint16_t* p, int n) {
  if (n == 16) return LoadBf16(p);
  uint16_t all[16] = {};
  std::memcpy(all, p, n * sizeof(uint16_t));
  return LoadBf16(all);
}
inline __m256 RoundToBf16x8(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256 quiet = _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x400000)));
  const __m256 chosen = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), quiet, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  return _mm256_and_ps(chosen, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
inline F32x16 RoundToBf16(F32x16 a) { return {RoundToBf16x8(a.lo), RoundToBf16x8(a.hi)}; }
inline void StoreBf16(uint16_t* p, F32x16 a) {
  const __m256i lo = _mm256_srli_epi32(_mm256_castps_si256(RoundToBf16x8(a.lo)), 16);
  const __m256i hi = _mm256_srli_epi32(_mm256_castps_si256(RoundToBf16x8(a.hi)), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xD8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
}
inline void StoreBf16N(uint16_t* p, F32x16 a, int n) {
  if (n == 16) return StoreBf16(p, a);
  uint16_t all[16];
  StoreBf16(all, a);
  std::memcpy(p, all, n * sizeof(uint16_t));
}

struct I32x16 {
  __m256i lo, hi;
};
inline I32x16 AllOf(uint32_t x) {
  const __m256i all = _mm256_set1_epi32(static_cast<int>(x));
  return {all, all};
}
inline I32x16 BitsOf(F32x16 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
inline F32x16 FloatOf(I32x16 a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
inline I32x16 operator+(I32x16 a, I32x16 b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
inline I32x16 operator-(I32x16 a, I32x16 b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
inline I32x16 operator&(I32x16 a, I32x16 b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
inline I32x16 operator|(I32x16 a, I32x16 b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
template <int kBits>
inline I32x16 ShiftLeft(I32x16 a) {
  return {_mm256_slli_epi32(a.lo, kBits), _mm256_slli_epi32(a.hi, kBits)};
}
template <int kBits>
inline I32x16 ShiftRight(I32x16 a) {
  return {_mm256_srli_epi32(a.lo, kBits), _mm256_srli_epi32(a.hi, kBits)};
}
inline Mask Less(I32x16 a, I32x16 b) {
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.lo, a.lo)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.hi, a.hi))};
}
inline I32x16 Select(Mask m, I32x16 a, I32x16 b) {
  return {_mm256_blendv_epi8(b.lo, a.lo, _mm256_castps_si256(m.lo)),
          _mm256_blendv_epi8(b.hi, a.hi, _mm256_castps_si256(m.hi))};
}
inline I32x16 Truncate(F32x16 a) { return {_mm256_cvttps_epi32(a.lo), _mm256_cvttps_epi32(a.hi)}; }
inline F32x16 ToFloat(I32x16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
inline I32x16 LoadU8N(const uint8_t* p, int n) {
  __m128i all = _mm_setzero_si128();
  if (n == 16) {
    all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  } else {
    std::memcpy(&all, p, n);
  }
  return {_mm256_cvtepu8_epi32(all), _mm256_cvtepu8_epi32(_mm_srli_si128(all, 8))};
}
inline void StoreU8N(uint8_t* p, I32x16 a, int n) {
  const __m256i low = _mm256_set1_epi32(0xff);
  const __m256i words = _mm256_packus_epi32(_mm256_and_si256(a.lo, low), _mm256_and_si256(a.hi, low));
  const __m256i bytes = _mm256_packus_epi16(words, words);  // in each half: 4 of lo, 4 of hi
  const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
  const __m128i all = _mm256_castsi256_si128(ordered);
  if (n == 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), all);
  } else {
    std::memcpy(p, &all, n);
  }
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
inline I32x16 LoadU12(const uint8_t* p) {
  const __m256i words = U12Words(p);
  return {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(words)),
          _mm256_cvtepu16_epi32(_mm256_extracti128_si256(words, 1))};
}
inline void StoreU12(uint8_t* p, I32x16 a) {
  StoreU12Words(p, _mm256_permute4x64_epi64(_mm256_packus_epi32(a.lo, a.hi), 0xD8));
}

inline float ReduceAdd(F32x16 a) {
  const __m256 v8 = _mm256_add_ps(a.lo, a.hi);
  const __m128 v4 = _mm_add_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps(v8, 1));
  const __m128 v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));
  return _mm_cvtss_f32(_mm_add_ss(v2, _mm_movehdup_ps(v2)));
}
inline float ReduceMax(F32x16 a) {
  const __m256 v8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 v4 = _mm_max_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps(v8, 1));
  const __m128 v2 = _mm_max_ps(v4, _mm_movehl_ps(v4, v4));
  return _mm_cvtss_f32(_mm_max_ss(v2, _mm_movehdup_ps(v2)));
}

inline void Transpose16(F32x16 rows[16]) {
  float square[16][16];
  for (int i = 0; i < 16; ++i) Store(square[i], rows[i]);
  for (int i = 0; i < 16; ++i) {
    float row[16];
    for (int j = 0; j < 16; ++j) row[j] = square[j][i];
    rows[i] = Load(row);
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
