// Vector loop of rotary positions.
#pragma once

#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

// Pair (a, b) turns by the angle whose cosine and sine are given: (a c - b s, a s + b c).
template <typename T>
inline void RotatePairs(T* x, const float* cosines, const float* sines, float sign, int64_t pairs) {
  ForLanes(pairs, [&](int64_t j, auto n) {
    float c[kLanes], s[kLanes], in[2 * kLanes], out[2 * kLanes];
    Store(c, LoadN(cosines + j, n));
    Store(s, LoadN(sines + j, n) * Broadcast(sign));
    const int count = 2 * n;
    const int low = count < kLanes ? count : kLanes;
    T* p = x + 2 * j;
    Store(in, LoadFrom(p, low));
    Store(in + kLanes, LoadFrom(p + low, count - low));
    for (int i = 0; i < kLanes; ++i) {
      out[2 * i] = in[2 * i] * c[i] - in[2 * i + 1] * s[i];
      out[2 * i + 1] = in[2 * i] * s[i] + in[2 * i + 1] * c[i];
    }
    StoreTo(p, Load(out), low);
    StoreTo(p + low, Load(out + kLanes), count - low);
  });
}

template <typename T>
inline void RopeRow(const RopeLoop& loop, int64_t row) {
  const int64_t position = loop.positions[row];
  const float* cosines = loop.cos_table + position * loop.table_stride;
  const float* sines = loop.sin_table + position * loop.table_stride;
  T* x = RowOf<T>(loop.x, row) + loop.offset;
  for (int64_t head = 0; head < loop.heads; ++head) {
    RotatePairs(x + head * loop.head_stride, cosines, sines, loop.sign, loop.pairs);
  }
}

inline void RopeRows(const RopeLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    loop.x.bf16 ? RopeRow<uint16_t>(loop, row) : RopeRow<float>(loop, row);
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
