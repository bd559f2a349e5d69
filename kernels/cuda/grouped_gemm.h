// Launching our own matrix kernels: grouped products with counts on the device, and plain ones as a group of one.
//
// Rows of c depend on their own operands only, in an order that k alone fixes: not on the counts, not on the grid.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/gemm_config.h"

namespace shoestring::cuda {

// Scales of an operand of the FP8 kernels.
struct ScaleSource {
  const float* data = nullptr;
  ScaleStrides strides;
};

// An operand as the wgmma kernels read it: a row-major matrix, in place or transposed.
struct TileSource {
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  ScaleSource scales;
};

// One launch; `offsets` null: one product of `description.m` (or k) rows.
struct GroupedCall {
  ProductDescription description;
  ProductConfig config;
  const int32_t* offsets = nullptr;
  TileSource a;
  TileSource b;
  void* c = nullptr;
  int64_t c_group_rows = 0;  // kTN: rows of c from one group's to the next
};

// Both abort the rank when the launch fails. a and b of FP8: both along the contracted dimension. In BF16 they lie as
// the layout says.
void LaunchGroupedFp8(const GroupedCall& call, cudaStream_t stream);
void LaunchGroupedBF16(const GroupedCall& call, cudaStream_t stream);

// The plain kernel reads operands as Backend has them. Sums are exactly those that docs/numerics.md defines for FP8,
// either accumulation, bit for bit; of bf16 and f32 fused multiply-adds in the order of k.
struct PlainCall {
  ProductDescription description;
  int64_t grid = 0;
  const int32_t* offsets = nullptr;
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  const float* a_scales = nullptr;
  const float* b_scales = nullptr;
  int64_t a_scales_stride = 0;
  int64_t b_scales_stride = 0;
};
void LaunchGroupedPlain(const PlainCall& call, cudaStream_t stream);
// c = 0.
void LaunchZero(const ProductDescription& description, void* c, cudaStream_t stream);

}  // namespace shoestring::cuda
