// The vector loops of the portable level.
#include "kernels/cpu/vector_ops_level.h"

namespace shoestring {

const VectorOps& PortableVectorOps() {
  static constexpr VectorOps kOps = simd::MakeVectorOps();
  return kOps;
}

}  // namespace shoestring
