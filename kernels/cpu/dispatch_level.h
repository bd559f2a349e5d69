// Vector loop that brings the experts' rows back to their tokens.
#pragma once

#include "kernels/cpu/lanes_level.h"
#include "kernels/limits.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

template <typename T>
inline void CombineToken(const CombineLoop& loop, int64_t token) {
  const int32_t* rows = loop.slot_row + token * loop.slot_row_stride;
  const int32_t* experts = loop.experts + token * loop.experts_stride;
  const T* base = loop.base.data != nullptr ? RowOf<T>(loop.base, token) : nullptr;
  T* out = RowOf<T>(loop.out, token);
  // Found once a token: where each slot's row lies, and whether it opens a new routing group.
  const T* row_of[kMaxChosenExperts];
  bool opens[kMaxChosenExperts];
  int64_t count = 0;
  int64_t last_group = 0;
  for (int64_t k = 0; k < loop.chosen; ++k) {
    if (rows[k] < 0) continue;
    const int64_t group = experts[k] / loop.experts_per_group;
    row_of[count] = RowOf<T>(loop.y, rows[k]);
    opens[count] = count > 0 && group != last_group;
    last_group = group;
    ++count;
  }
  ForLanes(loop.cols, [&](int64_t j, auto n) {
    F32x16 total = Zero();
    F32x16 group = Zero();
    for (int64_t k = 0; k < count; ++k) {
      if (opens[k]) {
        total = total + RoundAs(out, group);
        group = Zero();
      }
      group = group + LoadFrom(row_of[k] + j, n);
    }
    total = total + RoundAs(out, group);
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
