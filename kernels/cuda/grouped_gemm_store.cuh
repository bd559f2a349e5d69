// How a warpgroup's 64 x 128 sums reach c: assigned or added, rounded to bf16 or not.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>

#include "kernels/cuda/gemm_wgmma.cuh"
#include "kernels/cuda/grouped_gemm.h"

namespace shoestring::cuda {

struct StoreTarget {
  void* c = nullptr;
  int64_t stride = 0;
  int64_t n = 0;
  bool bf16 = false;
  bool accumulate = false;
  // Groups of four columns lie whole inside c and at a multiple of 8 (bf16) or 16 bytes (f32).
  bool vectors = false;
};

inline StoreTarget TargetOf(const GroupedCall& call) {
  const ProductDescription& d = call.description;
  StoreTarget to;
  to.c = call.c;
  to.stride = d.c_stride;
  to.n = d.n;
  to.bf16 = d.c_type == DType::kBF16;
  to.accumulate = d.accumulate;
  to.vectors = d.n % 4 == 0 && d.c_stride % 4 == 0 && d.c_alignment_bytes >= 16;
  return to;
}

// Two neighbouring columns of f32.
__device__ inline void StoreF32(const StoreTarget& to, float* row, int64_t column, float x, float y) {
  if (to.vectors) {
    if (column >= to.n) return;
    float2* at = reinterpret_cast<float2*>(row + column);
    float2 value = make_float2(x, y);
    if (to.accumulate) {
      const float2 old = *at;
      value = make_float2(old.x + x, old.y + y);
    }
    *at = value;
    return;
  }
  if (column < to.n) row[column] = to.accumulate ? row[column] + x : x;
  if (column + 1 < to.n) row[column + 1] = to.accumulate ? row[column + 1] + y : y;
}

__device__ inline uint32_t PackBF16(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

// Lanes of a quad hold two columns each of two groups of eight; after the exchange lane q holds four neighbouring ones:
// columns 4 (q % 2) of group q / 2. So the quad writes whole sectors of 32 bytes.
__device__ inline uint2 ExchangeInQuad(uint32_t first, uint32_t second) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int from = (lane & ~3) + 2 * (lane & 1);
  const uint32_t first_x = __shfl_sync(0xffffffffu, first, from);
  const uint32_t second_x = __shfl_sync(0xffffffffu, second, from);
  const uint32_t first_y = __shfl_sync(0xffffffffu, first, from + 1);
  const uint32_t second_y = __shfl_sync(0xffffffffu, second, from + 1);
  const bool in_second = (lane & 2) != 0;
  return make_uint2(in_second ? second_x : first_x, in_second ? second_y : first_y);
}

// Row `row` of c exists where `row_exists`; all lanes of a warp call this together.
__device__ inline void StoreBF16Row(const StoreTarget& to, __nv_bfloat16* row, bool row_exists, int64_t column,
                                    const WarpgroupSum& sum, int below) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int i = 0; i < 16; i += 2) {
    const float x0 = sum.d[4 * i + 2 * below], x1 = sum.d[4 * i + 2 * below + 1];
    const float y0 = sum.d[4 * i + 4 + 2 * below], y1 = sum.d[4 * i + 4 + 2 * below + 1];
    if (to.vectors) {
      const uint2 four = ExchangeInQuad(PackBF16(x0, x1), PackBF16(y0, y1));
      const int64_t at = column + 8 * i + 8 * ((lane & 2) >> 1) + 4 * (lane & 1);
      if (row_exists && at < to.n) *reinterpret_cast<uint2*>(row + at) = four;
    } else if (row_exists) {
      const int64_t at = column + 8 * i + 2 * (lane & 3);
      if (at < to.n) row[at] = __float2bfloat16_rn(x0);
      if (at + 1 < to.n) row[at + 1] = __float2bfloat16_rn(x1);
      if (at + 8 < to.n) row[at + 8] = __float2bfloat16_rn(y0);
      if (at + 9 < to.n) row[at + 9] = __float2bfloat16_rn(y1);
    }
  }
}

// The warpgroup's rows begin at row `first_row` of c; rows from `end_row` on are not c's. `column`: of the tile.
__device__ inline void StoreSum(const StoreTarget& to, int64_t first_row, int64_t end_row, int64_t column,
                                const WarpgroupSum& sum) {
  const int thread = static_cast<int>(threadIdx.x % 128);
#pragma unroll
  for (int below = 0; below < 2; ++below) {
    const int64_t row = first_row + SumRow(thread, 2 * below);
    const bool exists = row < end_row;
    if (to.bf16) {
      StoreBF16Row(to, static_cast<__nv_bfloat16*>(to.c) + row * to.stride, exists, column, sum, below);
    } else if (exists) {
      float* c = static_cast<float*>(to.c) + row * to.stride;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        StoreF32(to, c, column + SumColumn(thread, 4 * i), sum.d[4 * i + 2 * below], sum.d[4 * i + 2 * below + 1]);
      }
    }
  }
}

}  // namespace shoestring::cuda
