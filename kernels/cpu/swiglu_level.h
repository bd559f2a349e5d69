// Vector loops of SwiGLU and its gradient.
#pragma once

#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

template <typename T>
inline void SwiGluRow(const SwiGluLoop& loop, int64_t row) {
  const T* gate = RowOf<T>(loop.gate_up, row);
  const T* up = gate + loop.width;
  T* y = RowOf<T>(loop.y, row);
  const F32x16 weight = Broadcast(loop.row_weight != nullptr ? loop.row_weight[row] : 1.0f);
  ForLanes(loop.width, [&](int64_t j, auto n) {
    const F32x16 g = LoadFrom(gate + j, n);
    StoreTo(y + j, g * Sigmoid(g) * LoadFrom(up + j, n) * weight, n);
  });
}

inline void SwiGluRows(const SwiGluLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    loop.gate_up.bf16 ? SwiGluRow<uint16_t>(loop, row) : SwiGluRow<float>(loop, row);
  }
}

// y = silu(g) u w, silu(g) = g sig(g), silu'(g) = sig(g) (1 + g (1 - sig(g))):
// dg = dy w u silu'(g),  du = dy w silu(g),  dw = sum_j dy silu(g) u.
template <typename T>
inline void SwiGluBackwardRow(const SwiGluBackwardLoop& loop, int64_t row) {
  const T* gate = RowOf<T>(loop.gate_up, row);
  const T* up = gate + loop.width;
  const T* dy = RowOf<T>(loop.dy, row);
  T* d_gate = RowOf<T>(loop.d_gate_up, row);
  T* d_up = d_gate + loop.width;
  const F32x16 weight = Broadcast(loop.row_weight != nullptr ? loop.row_weight[row] : 1.0f);
  const F32x16 one = Broadcast(1.0f);
  F32x16 d_weight = Zero();
  ForLanes(loop.width, [&](int64_t j, auto n) {
    const F32x16 g = LoadFrom(gate + j, n);
    const F32x16 u = LoadFrom(up + j, n);
    const F32x16 d = LoadFrom(dy + j, n);
    const F32x16 sigmoid = Sigmoid(g);
    const F32x16 silu = g * sigmoid;
    const F32x16 dw = d * weight;
    d_weight = Fma(d * silu, u, d_weight);
    StoreTo(d_gate + j, dw * u * sigmoid * Fma(g, one - sigmoid, one), n);
    StoreTo(d_up + j, dw * silu, n);
  });
  if (loop.d_row_weight != nullptr) loop.d_row_weight[row] = ReduceAdd(d_weight);
}

inline void SwiGluBackwardRows(const SwiGluBackwardLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    loop.gate_up.bf16 ? SwiGluBackwardRow<uint16_t>(loop, row) : SwiGluBackwardRow<float>(loop, row);
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
