// What the vector loops of every operation share: typed rows, loads and stores by dtype, and the walk over columns.
//
// Like every *_level.h: included only by vector_ops_<level>.cc, compiled once a level, in that level's namespace.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_ops.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

// Sixteen, as a type: a loop body instantiated with it has no masks.
struct Full {
  constexpr operator int() const { return kLanes; }  // NOLINT(google-explicit-constructor): stands for a number
};

// body(column, n) over [0, cols): n is Full{} but for the last, ragged group, where it is an int below sixteen.
template <typename Body>
inline void ForLanes(int64_t cols, Body body) {
  int64_t j = 0;
  for (; j + kLanes <= cols; j += kLanes) body(j, Full{});
  if (j < cols) body(j, static_cast<int>(cols - j));
}

// The sum over [0, cols) of what `add(column, n, sum)` adds to `sum`, in four interleaved chains: one chain would wait
// for each addition. The order depends on cols alone.
template <typename Add>
inline F32x16 SumLanes(int64_t cols, Add add) {
  constexpr int kChains = 4;
  F32x16 sums[kChains] = {Zero(), Zero(), Zero(), Zero()};
  int64_t j = 0;
  for (; j + kChains * kLanes <= cols; j += kChains * kLanes) {
#pragma GCC unroll 4
    for (int chain = 0; chain < kChains; ++chain) sums[chain] = add(j + chain * kLanes, Full{}, sums[chain]);
  }
  for (; j + kLanes <= cols; j += kLanes) sums[0] = add(j, Full{}, sums[0]);
  if (j < cols) sums[0] = add(j, static_cast<int>(cols - j), sums[0]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

inline F32x16 LoadFrom(const float* p, int n) { return LoadN(p, n); }
inline F32x16 LoadFrom(const uint16_t* p, int n) { return LoadBf16N(p, n); }
inline void StoreTo(float* p, F32x16 a, int n) { StoreN(p, a, n); }
inline void StoreTo(uint16_t* p, F32x16 a, int n) { StoreBf16N(p, a, n); }
// As it will be read again from a tensor of that type.
inline F32x16 RoundAs(const float*, F32x16 a) { return a; }
inline F32x16 RoundAs(const uint16_t*, F32x16 a) { return RoundToBf16(a); }

template <typename T>
inline const T* RowOf(const ConstRows& rows, int64_t row) {
  return static_cast<const T*>(rows.data) + row * rows.stride;
}
template <typename T>
inline T* RowOf(const Rows& rows, int64_t row) {
  return static_cast<T*>(rows.data) + row * rows.stride;
}

// For operands whose dtype differs from the others': decided once a vector, well predicted.
inline F32x16 LoadEither(const ConstRows& rows, int64_t row, int64_t col, int n) {
  if (rows.bf16) return LoadBf16N(RowOf<uint16_t>(rows, row) + col, n);
  return LoadN(RowOf<float>(rows, row) + col, n);
}
inline void StoreEither(const Rows& rows, int64_t row, int64_t col, F32x16 a, int n) {
  if (rows.bf16) return StoreBf16N(RowOf<uint16_t>(rows, row) + col, a, n);
  StoreN(RowOf<float>(rows, row) + col, a, n);
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
