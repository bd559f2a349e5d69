// Picks the table of vector loops for an instruction-set level.
#include "kernels/cpu/vector_ops.h"

#include "base/check.h"
#include "kernels/cpu/cpu_features.h"

namespace shoestring {

const VectorOps& VectorOpsOf(Isa isa) {
  CHECK(IsaSupported(isa));
  switch (isa) {
    case Isa::kPortable: return PortableVectorOps();
    case Isa::kAvx2: return Avx2VectorOps();
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:  // adds products of bf16 pairs, which none of these loops has
      return Avx512VectorOps();
  }
  CHECK(false);
  return PortableVectorOps();
}

}  // namespace shoestring
