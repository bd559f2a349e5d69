// The GEMM driver with a deliberate mistake: along K, each FP8 operand's scales are taken in reverse order, those of
// the last tile for the first. Values and tiles stay as they are.
//
// Linked before the kernels' library it takes the driver's place. tests/acceptance.sh trains with it to see that the
// comparison of FP8 with BF16 notices.
#include "kernels/cpu/gemm_scales.h"

namespace shoestring {

// The tile along K that lies as far from the end as that of element k from the start.
inline int64_t Mirrored(const GemmCall& call, int64_t k) {
  const int64_t interval = call.fp8.how.interval;
  return ((call.k - 1) / interval - k / interval) * interval;
}
inline void MirroredRowScales(const GemmCall& call, int64_t row, int64_t rows, int64_t k, float* scales) {
  RowScales(call, row, rows, Mirrored(call, k), scales);
}
inline void MirroredColumnScales(const GemmCall& call, int64_t column, int64_t columns, int64_t k, float* scales) {
  ColumnScales(call, column, columns, Mirrored(call, k), scales);
}

}  // namespace shoestring

#define RowScales MirroredRowScales
#define ColumnScales MirroredColumnScales
#include "kernels/cpu/gemm.cc"
