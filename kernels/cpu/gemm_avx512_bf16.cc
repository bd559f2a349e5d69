// The GEMM kernels of the AVX-512 level with vdpbf16ps: 14 x 32 tiles, bf16 multiplied in pairs along K.
#include "kernels/cpu/gemm_level.h"

namespace shoestring {

const LevelKernels& Avx512Bf16GemmKernels() {
  using namespace simd;  // NOLINT: this file is one level
  static constexpr MicroTable kPairs = MakeMicroTable<MultiplyBf16Pairs, 2, 14>();
  static constexpr PackTable kPackPairs = MakePackTable<Bf16PairSource>();
  static constexpr PackTable kPackE4M3 = MakePackTable<Fp8PairSource<E4M3Format>>();
  static constexpr PackTable kPackE5M2 = MakePackTable<Fp8PairSource<E5M2Format>>();
  static const LevelKernels kLevel = {
      Avx512GemmKernels().f32, {14, 2, 2, &kPairs, &kPackPairs}, &kPackE4M3, &kPackE5M2};
  return kLevel;
}

}  // namespace shoestring
