// Vector loop of the embedding's gradient.
#pragma once

#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

inline void EmbeddingBackwardCols(const EmbeddingBackwardLoop& loop, int64_t first_col, int64_t end_col) {
  for (int64_t token = 0; token < loop.tokens; ++token) {
    float* d_row = loop.d_table + loop.ids[token] * loop.d_table_stride + first_col;
    ForLanes(end_col - first_col, [&](int64_t j, auto n) {
      StoreN(d_row + j, LoadN(d_row + j, n) + LoadEither(loop.dx, token, first_col + j, n), n);
    });
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
