// The GEMM kernels of the AVX-512 level without bf16 products: 14 x 32 tiles fill 28 of 32 registers.
#include "kernels/cpu/gemm_level.h"
#include "kernels/cpu/short_accumulator_level.h"

namespace shoestring {

const LevelKernels& Avx512GemmKernels() {
  using namespace simd;  // NOLINT: this file is one level
  static constexpr MicroTable kMicro = MakeMicroTable<MultiplyFloats, 2, 14>();
  static constexpr MicroTable kShort = MakeShortTable<2, 14>();
  static constexpr PackTable kPackFloats = MakePackTable<FloatSource>();
  static constexpr PackTable kPackBf16 = MakePackTable<Bf16AsFloatSource>();
  static constexpr PackTable kPackE4M3 = MakePackTable<Fp8AsFloatSource<E4M3Format>>();
  static constexpr PackTable kPackE5M2 = MakePackTable<Fp8AsFloatSource<E5M2Format>>();
  static constexpr LevelKernels kLevel = {{14, 2, 1, &kMicro, &kPackFloats},
                                          {14, 2, 1, &kMicro, &kPackBf16},
                                          &kPackE4M3,
                                          &kPackE5M2,
                                          &kShort,
                                          &kPackE4M3,
                                          &kPackE5M2};
  return kLevel;
}

}  // namespace shoestring
