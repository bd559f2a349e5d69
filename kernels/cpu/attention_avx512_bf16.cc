// The attention kernels of the AVX-512 level with vdpbf16ps; f32 is that of the level below.
#include "kernels/cpu/attention_backward_level.h"
#include "kernels/cpu/attention_forward_level.h"

namespace shoestring {

const LevelAttention& Avx512Bf16Attention() {
  using namespace simd;  // NOLINT: this file is one level
  static const LevelAttention kLevel = {Avx512Attention().f32,
                                        {AttentionForward<Bf16PairFormat>, AttentionBackward<Bf16PairFormat>}};
  return kLevel;
}

}  // namespace shoestring
