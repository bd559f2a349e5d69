// Vector loops of the elementwise operations.
#pragma once

#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

inline void AddRows(const AddLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    ForLanes(loop.cols, [&](int64_t j, auto n) {
      StoreEither(loop.y, row, j, LoadEither(loop.a, row, j, n) + LoadEither(loop.b, row, j, n), n);
    });
  }
}

inline void CopyRows(const CopyLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    ForLanes(loop.cols, [&](int64_t j, auto n) { StoreEither(loop.y, row, j, LoadEither(loop.x, row, j, n), n); });
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
