// Vector loop of softmax cross-entropy and its gradient.
#pragma once

#include "kernels/cpu/gate_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

// Sum of e^(x - highest): f32 inside a block, blocks in f64, so that a vocabulary of 129,280 loses no digits.
inline double SumOfExp(const float* x, float highest, int64_t cols) {
  constexpr int64_t kBlock = 1024;
  const F32x16 shift = Broadcast(highest);
  double total = 0;
  for (int64_t block = 0; block < cols; block += kBlock) {
    const F32x16 sums = SumLanes(cols - block < kBlock ? cols - block : kBlock, [&](int64_t j, auto n, F32x16 chain) {
      return chain + Select(FirstN(n), Exp(LoadN(x + block + j, n) - shift), Zero());
    });
    total += static_cast<double>(ReduceAdd(sums));
  }
  return total;
}

template <typename Out>
inline void CrossEntropyGradient(const CrossEntropyLoop& loop, int64_t row, float highest, double total) {
  const int32_t target = loop.targets[row];
  const float* x = RowOf<float>(loop.logits, row);
  Out* d = RowOf<Out>(loop.d_logits, row);
  if (target < 0) return ForLanes(loop.cols, [&](int64_t j, auto n) { StoreTo(d + j, Zero(), n); });
  const F32x16 shift = Broadcast(highest);
  const F32x16 scale = Broadcast(static_cast<float>(loop.grad_scale / total));
  // The target's own column is written last, from its logit read first: d may be the same memory as x.
  const double probability = static_cast<double>(__builtin_expf(x[target] - highest)) / total;
  ForLanes(loop.cols, [&](int64_t j, auto n) { StoreTo(d + j, Exp(LoadN(x + j, n) - shift) * scale, n); });
  StoreTo(d + target, Broadcast(static_cast<float>(loop.grad_scale * (probability - 1.0))), 1);
}

inline void CrossEntropyRows(const CrossEntropyLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    const float* x = RowOf<float>(loop.logits, row);
    const int32_t target = loop.targets[row];
    float highest = 0;
    double total = 1;
    if (target < 0) {
      loop.loss[row] = 0;
    } else {
      highest = MaxOf(x, loop.cols);
      total = SumOfExp(x, highest, loop.cols);
      loop.loss[row] =
          static_cast<float>(__builtin_log(total) + static_cast<double>(highest) - static_cast<double>(x[target]));
    }
    if (loop.d_logits.data == nullptr) continue;
    loop.d_logits.bf16 ? CrossEntropyGradient<uint16_t>(loop, row, highest, total)
                       : CrossEntropyGradient<float>(loop, row, highest, total);
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
