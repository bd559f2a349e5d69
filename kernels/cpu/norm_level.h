// Vector loops of RMSNorm and its gradients.
#pragma once

#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

template <typename T>
inline void RmsNormRow(const RmsNormLoop& loop, int64_t row) {
  const T* x = RowOf<T>(loop.x, row);
  F32x16 squares = Zero();
  if (loop.delta.data != nullptr) {
    const T* delta = RowOf<T>(loop.delta, row);
    T* sum = RowOf<T>(loop.sum, row);
    squares = SumLanes(loop.cols, [&](int64_t j, auto n, F32x16 chain) {
      // The sum is rounded first: what is normalised is what the residual stream holds.
      const F32x16 v = RoundAs(x, LoadFrom(x + j, n) + LoadFrom(delta + j, n));
      StoreTo(sum + j, v, n);
      return Fma(v, v, chain);
    });
    x = sum;
  } else {
    squares = SumLanes(loop.cols, [&](int64_t j, auto n, F32x16 chain) {
      const F32x16 v = LoadFrom(x + j, n);
      return Fma(v, v, chain);
    });
  }
  const double mean = static_cast<double>(ReduceAdd(squares)) / static_cast<double>(loop.cols);
  const float inverse = static_cast<float>(1.0 / __builtin_sqrt(mean + loop.eps));
  if (loop.inverse_rms != nullptr) loop.inverse_rms[row] = inverse;
  const F32x16 scale = Broadcast(inverse);
  T* y = RowOf<T>(loop.y, row);
  ForLanes(loop.cols,
           [&](int64_t j, auto n) { StoreTo(y + j, LoadFrom(x + j, n) * scale * LoadEither(loop.gain, 0, j, n), n); });
}

inline void RmsNormRows(const RmsNormLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    loop.x.bf16 ? RmsNormRow<uint16_t>(loop, row) : RmsNormRow<float>(loop, row);
  }
}

// With r = 1 / sqrt(mean(x^2) + eps), y_j = g_j x_j r and dr/dx_j = -r^3 x_j / D:
// dx_j = r g_j dy_j - x_j (r^3 / D) sum_k g_k dy_k x_k.
template <typename T>
inline void RmsNormBackwardInputRow(const RmsNormBackwardInputLoop& loop, int64_t row) {
  const T* x = RowOf<T>(loop.x, row);
  const T* dy = RowOf<T>(loop.dy, row);
  const T* add = loop.add.data != nullptr ? RowOf<T>(loop.add, row) : nullptr;
  T* dx = RowOf<T>(loop.dx, row);
  const F32x16 products = SumLanes(loop.cols, [&](int64_t j, auto n, F32x16 chain) {
    return Fma(LoadEither(loop.gain, 0, j, n) * LoadFrom(dy + j, n), LoadFrom(x + j, n), chain);
  });
  const float inverse = loop.inverse_rms[row];
  const double r = inverse;
  const F32x16 scale = Broadcast(inverse);
  const F32x16 pull = Broadcast(
      static_cast<float>(-r * r * r * static_cast<double>(ReduceAdd(products)) / static_cast<double>(loop.cols)));
  ForLanes(loop.cols, [&](int64_t j, auto n) {
    const F32x16 direct = LoadEither(loop.gain, 0, j, n) * LoadFrom(dy + j, n) * scale;
    F32x16 v = Fma(LoadFrom(x + j, n), pull, direct);
    if (add != nullptr) v = LoadFrom(add + j, n) + v;
    StoreTo(dx + j, v, n);
  });
}

inline void RmsNormBackwardInputRows(const RmsNormBackwardInputLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    loop.x.bf16 ? RmsNormBackwardInputRow<uint16_t>(loop, row) : RmsNormBackwardInputRow<float>(loop, row);
  }
}

template <typename T>
inline void RmsNormBackwardWeightCols(const RmsNormBackwardWeightLoop& loop, int64_t first_col, int64_t end_col) {
  // A row contributes four cache lines at a time, so that the walk down the rows does not waste what it loads.
  constexpr int kVectors = 4;
  for (int64_t col = first_col; col < end_col; col += kVectors * kLanes) {
    for (int64_t block = 0; block < loop.rows; block += loop.block_rows) {
      const int64_t end = block + loop.block_rows < loop.rows ? block + loop.block_rows : loop.rows;
      F32x16 sums[kVectors] = {Zero(), Zero(), Zero(), Zero()};
      const int64_t width = end_col - col < kVectors * kLanes ? end_col - col : kVectors * kLanes;
      for (int64_t row = block; row < end; ++row) {
        const T* x = RowOf<T>(loop.x, row) + col;
        const T* dy = RowOf<T>(loop.dy, row) + col;
        const F32x16 scale = Broadcast(loop.inverse_rms[row]);
        ForLanes(width, [&](int64_t j, auto n) {
          F32x16& sum = sums[j / kLanes];
          sum = Fma(LoadFrom(dy + j, n), LoadFrom(x + j, n) * scale, sum);
        });
      }
      float* d_gain = loop.d_gain + col;
      ForLanes(width, [&](int64_t j, auto n) { StoreN(d_gain + j, LoadN(d_gain + j, n) + sums[j / kLanes], n); });
    }
  }
}

inline void RmsNormBackwardWeight(const RmsNormBackwardWeightLoop& loop, int64_t first_col, int64_t end_col) {
  loop.x.bf16 ? RmsNormBackwardWeightCols<uint16_t>(loop, first_col, end_col)
              : RmsNormBackwardWeightCols<float>(loop, first_col, end_col);
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
