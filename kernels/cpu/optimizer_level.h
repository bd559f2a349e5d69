// Vector loops of the optimizer: AdamW, the running mean of weights, sums of squares.
#pragma once

#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

template <typename Moment>
inline void AdamWRange(const AdamWLoop& loop, int64_t first, int64_t end) {
  Moment* m_data = static_cast<Moment*>(loop.m.data);
  const F32x16 grad_scale = Broadcast(loop.grad_scale), rate = Broadcast(loop.learning_rate);
  const F32x16 beta1 = Broadcast(loop.beta1), rest1 = Broadcast(loop.one_minus_beta1);
  const F32x16 beta2 = Broadcast(loop.beta2), rest2 = Broadcast(loop.one_minus_beta2);
  const F32x16 m_correction = Broadcast(loop.m_correction), v_correction = Broadcast(loop.v_correction);
  const F32x16 eps = Broadcast(loop.eps), decay = Broadcast(loop.weight_decay);
  const ConstRows v_in = {loop.v.data, 0, loop.v.bf16};
  ForLanes(end - first, [&](int64_t offset, auto n) {
    const int64_t i = first + offset;
    const F32x16 g = LoadN(loop.grad + i, n) * grad_scale;
    const F32x16 m = Fma(beta1, LoadFrom(m_data + i, n), rest1 * g);
    const F32x16 v = Fma(beta2, LoadEither(v_in, 0, i, n), rest2 * g * g);
    const F32x16 w = LoadN(loop.master + i, n);
    // The moments are rounded when they are stored; the update uses them as computed.
    const F32x16 update = m * m_correction / (Sqrt(v * v_correction) + eps);
    const F32x16 next = w - rate * Fma(decay, w, update);
    StoreTo(m_data + i, m, n);
    StoreEither(loop.v, 0, i, v, n);
    StoreN(loop.master + i, next, n);
    if (loop.compute.data != nullptr) StoreEither(loop.compute, 0, i, next, n);
  });
}

inline void AdamWElements(const AdamWLoop& loop, int64_t first, int64_t end) {
  loop.m.bf16 ? AdamWRange<uint16_t>(loop, first, end) : AdamWRange<float>(loop, first, end);
}

inline void EmaElements(const float* weights, float decay, float one_minus_decay, float* ema, int64_t count) {
  const F32x16 keep = Broadcast(decay), take = Broadcast(one_minus_decay);
  ForLanes(count,
           [&](int64_t j, auto n) { StoreN(ema + j, Fma(keep, LoadN(ema + j, n), take * LoadN(weights + j, n)), n); });
}

inline double SquaredNormOf(const float* x, int64_t count) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double v = x[i + lane];
      lanes[lane] += v * v;
    }
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int lane = 0; lane < step; ++lane) lanes[lane] += lanes[lane + step];
  }
  return lanes[0];
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
