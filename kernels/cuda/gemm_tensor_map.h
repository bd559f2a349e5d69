// Descriptions of matrices for Hopper's bulk copy engine.
#pragma once

#include <cuda.h>

#include "kernels/cuda/grouped_gemm.h"

namespace shoestring::cuda {

// Boxes of `box_cols` x `box_rows` elements of a row-major matrix, in shared memory as rows of 128 bytes in the
// 128-byte swizzle (box_cols elements are 128 bytes). `type`: kU8 for FP8 codes, or kBF16. The driver's encoder is
// found at the first call, through the runtime: nothing links to libcuda. It writes to the host's memory only.
CUtensorMap MakeTensorMap(const TileSource& matrix, DType type, int box_cols, int box_rows);

}  // namespace shoestring::cuda
