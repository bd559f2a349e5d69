// The vector loops of the AVX-512 level.
#include "kernels/cpu/vector_ops_level.h"

namespace shoestring {

const VectorOps& Avx512VectorOps() {
  static constexpr VectorOps kOps = simd::MakeVectorOps();
  return kOps;
}

}  // namespace shoestring
