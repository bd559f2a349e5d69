// The portable level of simd.h: an array of sixteen floats and loops that any compiler understands.
#pragma once

#include <cstdint>
#include <cstring>

#define SHOESTRING_SIMD_LEVEL portable

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

struct F32x16 {
  float v[16];
};
struct Mask {
  bool v[16];
};

// f(i) for every lane.
template <typename F>
inline F32x16 MakeLanes(F f) {
  F32x16 out;
  for (int i = 0; i < 16; ++i) out.v[i] = f(i);
  return out;
}

inline Mask FirstN(int n) {
  Mask out;
  for (int i = 0; i < 16; ++i) out.v[i] = i < n;
  return out;
}
inline F32x16 Broadcast(float x) {
  return MakeLanes([&](int) { return x; });
}
inline F32x16 Zero() { return Broadcast(0.0f); }
inline F32x16 LoadN(const float* p, int n) {
  return MakeLanes([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline F32x16 Load(const float* p) { return LoadN(p, 16); }
inline void StoreN(float* p, const F32x16& a, int n) { std::memcpy(p, a.v, n * sizeof(float)); }
inline void Store(float* p, const F32x16& a) { StoreN(p, a, 16); }

inline F32x16 operator+(const F32x16& a, const F32x16& b) {
  return MakeLanes([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 operator-(const F32x16& a, const F32x16& b) {
  return MakeLanes([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x16 operator*(const F32x16& a, const F32x16& b) {
  return MakeLanes([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 operator/(const F32x16& a, const F32x16& b) {
  return MakeLanes([&](int i) { return a.v[i] / b.v[i]; });
}
// Two roundings: without the instruction a fused one costs a library call each.
inline F32x16 Fma(const F32x16& a, const F32x16& b, const F32x16& c) { return a * b + c; }
// A call of its own, because sixteen calls of a library's function where it is used would cost a loop its registers.
[[gnu::noinline]] inline F32x16 FusedMultiplyAdd(const F32x16& a, const F32x16& b, const F32x16& c) {
  return MakeLanes([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline F32x16 Min(const F32x16& a, const F32x16& b) {
  return MakeLanes([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 Max(const F32x16& a, const F32x16& b) {
  return MakeLanes([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 Sqrt(const F32x16& a) {
  return MakeLanes([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
inline Mask Less(const F32x16& a, const F32x16& b) {
  Mask out;
  for (int i = 0; i < 16; ++i) out.v[i] = a.v[i] < b.v[i];
  return out;
}
inline F32x16 Select(const Mask& m, const F32x16& a, const F32x16& b) {
  return MakeLanes([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; });
}

inline uint32_t BitsOf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
inline float FloatOf(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
inline F32x16 ShiftExponent(const F32x16& t) {
  return MakeLanes([&](int i) { return FloatOf((BitsOf(t.v[i]) << 23) + 0x3F800000u); });
}

inline uint16_t ToBf16Bits(float x) {
  const uint32_t bits = BitsOf(x);
  if (x != x) return static_cast<uint16_t>((bits | 0x400000u) >> 16);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
inline F32x16 LoadBf16N(const uint16_t* p, int n) {
  return MakeLanes([&](int i) { return i < n ? FloatOf(uint32_t{p[i]} << 16) : 0.0f; });
}
inline F32x16 LoadBf16(const uint16_t* p) { return LoadBf16N(p, 16); }
inline F32x16 RoundToBf16(const F32x16& a) {
  return MakeLanes([&](int i) { return FloatOf(uint32_t{ToBf16Bits(a.v[i])} << 16); });
}
inline void StoreBf16N(uint16_t* p, const F32x16& a, int n) {
  for (int i = 0; i < n; ++i) p[i] = ToBf16Bits(a.v[i]);
}
inline void StoreBf16(uint16_t* p, const F32x16& a) { StoreBf16N(p, a, 16); }

struct I32x16 {
  uint32_t v[16];
};
template <typename F>
inline I32x16 MakeIntegers(F f) {
  I32x16 out;
  for (int i = 0; i < 16; ++i) out.v[i] = f(i);
  return out;
}
inline I32x16 AllOf(uint32_t x) {
  return MakeIntegers([&](int) { return x; });
}
inline I32x16 BitsOf(const F32x16& a) {
  return MakeIntegers([&](int i) { return BitsOf(a.v[i]); });
}
inline F32x16 FloatOf(const I32x16& a) {
  return MakeLanes([&](int i) { return FloatOf(a.v[i]); });
}
inline I32x16 operator+(const I32x16& a, const I32x16& b) {
  return MakeIntegers([&](int i) { return a.v[i] + b.v[i]; });
}
inline I32x16 operator-(const I32x16& a, const I32x16& b) {
  return MakeIntegers([&](int i) { return a.v[i] - b.v[i]; });
}
inline I32x16 operator&(const I32x16& a, const I32x16& b) {
  return MakeIntegers([&](int i) { return a.v[i] & b.v[i]; });
}
inline I32x16 operator|(const I32x16& a, const I32x16& b) {
  return MakeIntegers([&](int i) { return a.v[i] | b.v[i]; });
}
template <int kBits>
inline I32x16 ShiftLeft(const I32x16& a) {
  return MakeIntegers([&](int i) { return a.v[i] << kBits; });
}
template <int kBits>
inline I32x16 ShiftRight(const I32x16& a) {
  return MakeIntegers([&](int i) { return a.v[i] >> kBits; });
}
inline Mask Less(const I32x16& a, const I32x16& b) {
  Mask out;
  for (int i = 0; i < 16; ++i) out.v[i] = static_cast<int32_t>(a.v[i]) < static_cast<int32_t>(b.v[i]);
  return out;
}
inline I32x16 Select(const Mask& m, const I32x16& a, const I32x16& b) {
  return MakeIntegers([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; });
}
inline I32x16 Truncate(const F32x16& a) {
  return MakeIntegers(
      [&](int i) { return a.v[i] == a.v[i] ? static_cast<uint32_t>(static_cast<int32_t>(a.v[i])) : 0u; });
}
inline F32x16 ToFloat(const I32x16& a) {
  return MakeLanes([&](int i) { return static_cast<float>(static_cast<int32_t>(a.v[i])); });
}
inline I32x16 LoadU8N(const uint8_t* p, int n) {
  return MakeIntegers([&](int i) { return i < n ? uint32_t{p[i]} : 0u; });
}
inline void StoreU8N(uint8_t* p, const I32x16& a, int n) {
  for (int i = 0; i < n; ++i) p[i] = static_cast<uint8_t>(a.v[i]);
}

inline I32x16 LoadU12(const uint8_t* p) {
  return MakeIntegers([&](int i) {
    const uint8_t* pair = p + i / 2 * 3;
    return i % 2 == 0 ? pair[0] | (pair[1] & 15u) << 8 : pair[1] >> 4 | uint32_t{pair[2]} << 4;
  });
}
inline void StoreU12(uint8_t* p, const I32x16& a) {
  for (int i = 0; i < 16; i += 2, p += 3) {
    const uint32_t pair = a.v[i] | a.v[i + 1] << 12;
    p[0] = static_cast<uint8_t>(pair);
    p[1] = static_cast<uint8_t>(pair >> 8);
    p[2] = static_cast<uint8_t>(pair >> 16);
  }
}

inline float ReduceAdd(F32x16 a) {
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a.v[i] += a.v[i + step];
  }
  return a.v[0];
}
inline float ReduceMax(F32x16 a) {
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
  }
  return a.v[0];
}

inline void Transpose16(F32x16 rows[16]) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < i; ++j) {
      const float swapped = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = swapped;
    }
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
