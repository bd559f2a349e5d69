// Vector loop that brings the experts' rows back to their tokens.
#pragma once

#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

template <typename T>
inline void CombineToken(const CombineLoop& loop, int64_t token) {
  const int32_t* rows = loop.slot_row + token * loop.slot_row_stride;
  const int32_t* experts = loop.experts + token * loop.experts_stride;
  const T* base = loop.base.data != nullptr ? RowOf<T>(loop.base, token) : nullptr;
  T* out = RowOf<T>(loop.out, token);
  ForLanes(loop.cols, [&](int64_t j, auto n) {
    F32x16 total = Zero();
    for (int64_t k = 0; k < loop.chosen;) {
      const int64_t group = experts[k] / loop.experts_per_group;
      F32x16 sum = LoadFrom(RowOf<T>(loop.y, rows[k]) + j, n);
      for (++k; k < loop.chosen && experts[k] / loop.experts_per_group == group; ++k) {
        sum = sum + LoadFrom(RowOf<T>(loop.y, rows[k]) + j, n);
      }
      total = total + RoundAs(out, sum);
    }
    if (base != nullptr) total = total + LoadFrom(base + j, n);
    StoreTo(out + j, total, n);
  });
}

inline void CombineTokens(const CombineLoop& loop, int64_t first_token, int64_t end_token) {
  for (int64_t token = first_token; token < end_token; ++token) {
    loop.y.bf16 ? CombineToken<uint16_t>(loop, token) : CombineToken<float>(loop, token);
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
