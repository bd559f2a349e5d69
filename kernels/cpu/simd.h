// Sixteen floats as one value, on whatever instruction set the including file is compiled for; exp, sigmoid, sums.
//
// A file that uses this is compiled once a level (kernels/CMakeLists.txt). Each level lives in an inline namespace of
// its own, so that the linker can never put AVX-512 code where another level is called. For the same reason such files
// include no standard header with inline functions. The levels offer the same names:
//
//   F32x16, Mask                       values
//   Zero() Broadcast(x) Load(p) LoadN(p, n) Store(p, v) StoreN(p, v, n)     n in [0, 16]: the first n; the rest reads
//   as 0 LoadBf16 LoadBf16N StoreBf16 StoreBf16N    bf16 <-> float; storing rounds to nearest even, NaN stays NaN
//   LoadBf16PairsN InterleaveBf16N InterleaveAsBf16   two bf16 in a dword, for vdpbf16ps (AVX-512 levels only)
//   + - * /  Fma(a, b, c) = a * b + c (one rounding where the machine has it)  Min Max (return b if either is NaN)
//   FusedMultiplyAdd(a, b, c)          one rounding everywhere; slow on the portable level
//   Less(a, b) FirstN(n) Select(mask, a, b)  RoundToBf16(v)  Sqrt(v)
//   ReduceAdd ReduceMax                over lanes, as a fixed tree: 8, 4, 2, 1 apart
//   ShiftExponent(t)                   2^n of t = n + 1.5 * 2^23
//   Transpose16(rows)                  16 x 16 in place
//   I32x16                             sixteen 32-bit integers: + - & | on them, AllOf(x) broadcasts, Less is signed,
//                                      ShiftLeft<n> ShiftRight<n> (zeros enter), BitsOf(v) and FloatOf(i) reinterpret,
//                                      LoadU8N(p, n) StoreU8N(p, i, n)  bytes <-> integers (the low eight bits),
//                                      LoadU12(p) StoreU12(p, i)  sixteen times twelve bits in 24 bytes,
//                                      Truncate(v) toward zero, of a NaN anything; ToFloat(i)
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include "kernels/cpu/simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "kernels/cpu/simd_avx2.h"
#else
#include "kernels/cpu/simd_portable.h"
#endif

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

inline constexpr int kLanes = 16;

// e^v within 2 units in the last place; 0 below -87, infinity above 88.37; NaN stays NaN. Cephes' polynomial.
inline F32x16 Exp(F32x16 v) {
  const F32x16 low = Broadcast(-87.0f), high = Broadcast(88.37f), magic = Broadcast(12582912.0f);
  const F32x16 x = Max(low, Min(high, v));
  const F32x16 t = Fma(x, Broadcast(1.44269504f), magic);
  const F32x16 n = t - magic;
  // ln 2 in two parts, the first with trailing zeros, so that the reduced argument keeps its last bits.
  const F32x16 r = Fma(n, Broadcast(2.12194440e-4f), Fma(n, Broadcast(-0.693359375f), x));
  F32x16 p = Fma(Broadcast(1.9875691500e-4f), r, Broadcast(1.3981999507e-3f));
  p = Fma(p, r, Broadcast(8.3334519073e-3f));
  p = Fma(p, r, Broadcast(4.1665795894e-2f));
  p = Fma(p, r, Broadcast(1.6666665459e-1f));
  p = Fma(p, r, Broadcast(5.0000001201e-1f));
  const F32x16 y = Fma(p, r * r, r + Broadcast(1.0f)) * ShiftExponent(t);
  return Select(Less(v, low), Zero(), Select(Less(high, v), Broadcast(__builtin_inff()), y));
}

// 1 / (1 + e^-v).
inline F32x16 Sigmoid(F32x16 v) { return Broadcast(1.0f) / (Broadcast(1.0f) + Exp(Zero() - v)); }

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
