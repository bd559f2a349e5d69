// The GEMM kernels of the AVX-512 level with vdpbf16ps: 14 x 32 tiles, bf16 multiplied in pairs along K.
#include "kernels/cpu/gemm_level.h"

namespace shoestring {

const LevelKernels& Avx512Bf16GemmKernels() {
  using namespace simd;  // NOLINT: this file is one level
  static constexpr MicroTable kPairs = MakeMicroTable<MultiplyBf16Pairs, 2, 14>();
  static constexpr PackTable kPackPairs = MakePackTable<Bf16PairSource>();
  static constexpr PackTable kPackE4M3 = MakePackTable<Fp8PairSource<E4M3Format>>();
  static constexpr PackTable kPackE5M2 = MakePackTable<Fp8PairSource<E5M2Format>>();
  static const LevelKernels kLevel = [] {
    LevelKernels level = Avx512GemmKernels();
    level.bf16 = {14, 2, 2, &kPairs, &kPackPairs};
    level.e4m3 = &kPackE4M3;
    level.e5m2 = &kPackE5M2;
    return level;
  }();
  return kLevel;
}

}  // namespace shoestring
