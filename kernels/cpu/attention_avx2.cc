// The attention kernels of the AVX2 level.
#include "kernels/cpu/attention_backward_level.h"
#include "kernels/cpu/attention_forward_level.h"

namespace shoestring {

const LevelAttention& Avx2Attention() {
  using namespace simd;  // NOLINT: this file is one level
  static constexpr LevelAttention kLevel = {
      {AttentionForward<FloatFormat>, AttentionBackward<FloatFormat>},
      {AttentionForward<Bf16AsFloatFormat>, AttentionBackward<Bf16AsFloatFormat>}};
  return kLevel;
}

}  // namespace shoestring
