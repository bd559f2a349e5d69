// The vector loops of the AVX2 level.
#include "kernels/cpu/vector_ops_level.h"

namespace shoestring {

const VectorOps& Avx2VectorOps() {
  static constexpr VectorOps kOps = simd::MakeVectorOps();
  return kOps;
}

}  // namespace shoestring
