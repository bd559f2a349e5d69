// The GEMM kernels of the portable level: 4 x 16 tiles.
#include "kernels/cpu/gemm_level.h"
#include "kernels/cpu/short_accumulator_level.h"

namespace shoestring {

const LevelKernels& PortableGemmKernels() {
  using namespace simd;  // NOLINT: this file is one level
  static constexpr MicroTable kMicro = MakeMicroTable<MultiplyFloats, 1, 4>();
  static constexpr MicroTable kShort = MakeShortTable<1, 4>();
  static constexpr PackTable kPackFloats = MakePackTable<FloatSource>();
  static constexpr PackTable kPackBf16 = MakePackTable<Bf16AsFloatSource>();
  static constexpr PackTable kPackE4M3 = MakePackTable<Fp8AsFloatSource<E4M3Format>>();
  static constexpr PackTable kPackE5M2 = MakePackTable<Fp8AsFloatSource<E5M2Format>>();
  static constexpr LevelKernels kLevel = {{4, 1, 1, &kMicro, &kPackFloats},
                                          {4, 1, 1, &kMicro, &kPackBf16},
                                          &kPackE4M3,
                                          &kPackE5M2,
                                          &kShort,
                                          &kPackE4M3,
                                          &kPackE5M2};
  return kLevel;
}

}  // namespace shoestring
