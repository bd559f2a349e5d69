// Preparing FP8 operands for Hopper: copies of codes along the contracted dimension, and scales where cuBLASLt looks.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/gemm_config.h"

namespace shoestring::cuda {

// Codes of `matrices` matrices [rows, cols], one below the other, or, with offsets, of the segments of one matrix.
//
// Without offsets matrix e's transposed copy [cols, rows] begins at row e * cols of `to`. With offsets there is one
// copy [cols, padded]: segment e begins at column 128 * SegmentScaleRow of it, and is filled up to a multiple of 128
// with zeros. Columns of `to` that belong to no matrix or segment stay as they are.
struct TransposeCall {
  const uint8_t* from = nullptr;
  int64_t from_stride = 0;
  int64_t rows = 0;  // of one matrix; with offsets: at most, of all segments
  int64_t cols = 0;
  int64_t matrices = 1;
  const int32_t* offsets = nullptr;
  int64_t groups = 0;
  uint8_t* to = nullptr;
  int64_t to_stride = 0;  // k_padded: a multiple of 128
};
void LaunchTranspose(const TransposeCall& call, cudaStream_t stream);

// Scales as `packing` says; what pads its rows to four is 0.
void LaunchPackScales(const float* from, const ScalePacking& packing, float* to, cudaStream_t stream);

}  // namespace shoestring::cuda
