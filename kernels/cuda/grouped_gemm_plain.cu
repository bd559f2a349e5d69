// Matrix products as plain loops, an element of c a thread: any shape, stride, type, tile and interval. The definition
// on the GPU that faster kernels are compared with, and what multiplies where they refuse.
#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/grouped_gemm_schedule.h"
#include "kernels/cuda/kernel_launch.cuh"

namespace shoestring::cuda {
namespace {

constexpr int kChunk = 32;  // steps of k in shared memory at once; as many as the short accumulator aligns
constexpr int kThreads = kPlainBlock * kPlainBlock;

// Scales of one operand of one group: that of stored element (r, c) is
// data[(first_row + (r - origin) / tile_rows) * stride + c / tile_cols].
struct PlainScales {
  const float* data;
  int64_t first_row, origin, stride, tile_rows, tile_cols;
  __device__ float At(int64_t r, int64_t c) const {
    return data[(first_row + (r - origin) / tile_rows) * stride + c / tile_cols];
  }
};

// One operand of one group, addressed by (outer, k); `outer` is a row or a column of c.
template <typename T>
struct PlainOperand {
  const T* data;
  int64_t outer_step, k_step;
  int64_t row_of_outer, row_of_k;  // 1 where that index runs down the stored rows
  int64_t first_row;               // of the stored matrix
  PlainScales scales;

  __device__ T At(int64_t outer, int64_t k) const { return data[outer * outer_step + k * k_step]; }
  __device__ float ScaleAt(int64_t outer, int64_t k) const {
    return scales.At(first_row + outer * row_of_outer + k * row_of_k, outer * row_of_k + k * row_of_outer);
  }
};

__device__ float ValueOf(float x) { return x; }
__device__ float ValueOf(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ float ValueOf(__nv_fp8_e4m3 x) { return static_cast<float>(x); }
// docs/numerics.md knows no infinity among the codes: all above the largest value are NaN.
__device__ float ValueOf(__nv_fp8_e5m2 x) {
  const float value = static_cast<float>(x);
  return isinf(value) ? __uint_as_float(0x7fc00000u) : value;
}

// 2^exponent of a format's smallest normal number.
__device__ float SmallestOf(__nv_fp8_e4m3) { return 0x1p-6f; }
__device__ float SmallestOf(__nv_fp8_e5m2) { return 0x1p-14f; }
__device__ float SmallestOf(float) { return 0; }
__device__ float SmallestOf(__nv_bfloat16) { return 0; }

__device__ float PowerOf(float x) { return __uint_as_float(__float_as_uint(x) & 0x7f800000u); }

// The short accumulator's register after up to 32 products (docs/numerics.md, "Short accumulator").
__device__ float AddShort(float sum, const float* a, const float* b, int count, float a_smallest, float b_smallest) {
  constexpr int kKeptBits = 13;
  float largest = fmaxf(PowerOf(sum), 0x1p-100f);
  bool finite = true;
  for (int k = 0; k < count; ++k) {
    if (a[k] != a[k] || b[k] != b[k]) finite = false;
    if (a[k] * b[k] != 0) largest = fmaxf(largest, fmaxf(PowerOf(a[k]), a_smallest) * fmaxf(PowerOf(b[k]), b_smallest));
  }
  if (!finite || sum != sum) return __uint_as_float(0x7fc00000u);
  const float up = ldexpf(1 / largest, kKeptBits);
  int total = static_cast<int>(sum * up);
  for (int k = 0; k < count; ++k) total += static_cast<int>(a[k] * b[k] * up);
  const uint32_t kept = __float_as_uint(static_cast<float>(total)) & ~((1u << (23 - kKeptBits)) - 1);
  return __uint_as_float(kept) * ldexpf(largest, -kKeptBits);
}

struct PlainParams {
  PlainCall call;
  int m_tiles, n_tiles, rows;
  bool short_sums;
};

int64_t Rows(const ProductDescription& d) { return d.by_tokens() ? d.k : d.m; }

__device__ int64_t ScaleRowsOf(int64_t tile_rows, int64_t rows) { return (rows + tile_rows - 1) / tile_rows; }

// A matrix of a stack with `each` rows, or the group's rows of a matrix whose tiles start anew at each segment, or
// whole.
__device__ PlainScales ScalesOf(const float* data, int64_t stride, const Tile& tile, const GroupedTile& t, bool stack,
                                bool segments, int64_t each) {
  PlainScales s = {data, 0, 0, stride, tile.rows, tile.cols};
  if (stack) {
    s.origin = t.group * each;
    s.first_row = t.group * ScaleRowsOf(tile.rows, each);
  } else if (segments && tile.rows > 1) {
    s.origin = t.first;
    s.first_row = t.first / tile.rows + t.group;
  }
  return s;
}

template <typename A>
__device__ PlainOperand<A> OperandA(const PlainCall& c, const GroupedTile& t) {
  const ProductDescription& d = c.description;
  const bool down = d.layout == GemmLayout::kTN;  // k runs down the rows
  PlainOperand<A> a = {static_cast<const A*>(c.a) + t.first * d.a_stride,
                       down ? 1 : d.a_stride,
                       down ? d.a_stride : 1,
                       down ? 0 : 1,
                       down ? 1 : 0,
                       t.first,
                       {}};
  if (c.a_scales != nullptr) {
    a.scales = ScalesOf(c.a_scales, c.a_scales_stride, d.a_tile, t, false, c.offsets != nullptr, 0);
  }
  return a;
}

template <typename B>
__device__ PlainOperand<B> OperandB(const PlainCall& c, const GroupedTile& t) {
  const ProductDescription& d = c.description;
  const bool down = d.layout != GemmLayout::kNT;
  const bool stack = d.layout != GemmLayout::kTN;
  const int64_t each = d.layout == GemmLayout::kNT ? d.n : d.k;
  const int64_t first = stack ? t.group * each : t.first;
  PlainOperand<B> b = {static_cast<const B*>(c.b) + first * d.b_stride,
                       down ? 1 : d.b_stride,
                       down ? d.b_stride : 1,
                       down ? 0 : 1,
                       down ? 1 : 0,
                       first,
                       {}};
  if (c.b_scales != nullptr) {
    b.scales = ScalesOf(c.b_scales, c.b_scales_stride, d.b_tile, t, stack, c.offsets != nullptr, each);
  }
  return b;
}

// Element (i, j) of a tile of c; all threads of the block take part. `i_end`, `j_end`: rows and columns there are.
template <typename A, typename B>
__device__ float Element(const PlainOperand<A>& a, const PlainOperand<B>& b, int64_t i, int64_t j, int64_t i_end,
                         int64_t j_end, int64_t k_end, int64_t interval, bool short_sums) {
  __shared__ float a_values[kPlainBlock][kChunk + 1], b_values[kPlainBlock][kChunk + 1];
  const int row = static_cast<int>(threadIdx.x) / kPlainBlock, column = static_cast<int>(threadIdx.x) % kPlainBlock;
  const int64_t i0 = i - row, j0 = j - column;
  float acc = 0;
  for (int64_t start = 0; start < k_end; start += interval) {
    const int64_t stop = start + interval < k_end ? start + interval : k_end;
    float sum = 0;
    for (int64_t k0 = start; k0 < stop; k0 += kChunk) {
      const int count = static_cast<int>(stop - k0 < kChunk ? stop - k0 : kChunk);
      __syncthreads();
      for (int e = static_cast<int>(threadIdx.x); e < kPlainBlock * kChunk; e += kThreads) {
        const int outer = e / kChunk, k = e % kChunk;
        if (k < count && i0 + outer < i_end) a_values[outer][k] = ValueOf(a.At(i0 + outer, k0 + k));
        if (k < count && j0 + outer < j_end) b_values[outer][k] = ValueOf(b.At(j0 + outer, k0 + k));
      }
      __syncthreads();
      if (short_sums) {
        sum = AddShort(sum, a_values[row], b_values[column], count, SmallestOf(A{}), SmallestOf(B{}));
      } else {
        for (int k = 0; k < count; ++k) sum = __fmaf_rn(a_values[row][k], b_values[column][k], sum);
      }
    }
    if (a.scales.data == nullptr) {
      acc = sum;
    } else if (i < i_end && j < j_end) {
      acc = __fmaf_rn(sum, __fmul_rn(a.ScaleAt(i, start), b.ScaleAt(j, start)), acc);
    }
  }
  return acc;
}

__device__ void Store(const PlainCall& call, int64_t row, int64_t column, float x) {
  const ProductDescription& d = call.description;
  const int64_t at = row * d.c_stride + column;
  if (d.c_type == DType::kBF16) {
    static_cast<__nv_bfloat16*>(call.c)[at] = __float2bfloat16_rn(x);
  } else {
    float* c = static_cast<float*>(call.c);
    c[at] = d.accumulate ? c[at] + x : x;
  }
}

template <typename A, typename B>
__global__ void __launch_bounds__(kThreads) PlainKernel(const PlainParams p) {
  const ProductDescription& d = p.call.description;
  const bool by_tokens = d.layout == GemmLayout::kTN;
  const int row = static_cast<int>(threadIdx.x) / kPlainBlock, column = static_cast<int>(threadIdx.x) % kPlainBlock;
  GroupedSchedule schedule(p.call.offsets, static_cast<int>(d.groups), p.rows, by_tokens, kPlainBlock, p.m_tiles,
                           p.n_tiles);
  GroupedTile t;
  for (int index = static_cast<int>(blockIdx.x); schedule.At(index, &t); index += static_cast<int>(gridDim.x)) {
    const int64_t i_end = by_tokens ? d.m : t.count;
    const int64_t k_end = by_tokens ? t.count : d.k;
    const int64_t i = t.m_tile * kPlainBlock + row, j = t.n_tile * kPlainBlock + column;
    // What is not quantised has one interval: all of k.
    const int64_t interval = p.call.a_scales == nullptr ? (k_end > 0 ? k_end : 1) : d.how.interval;
    const float sum =
        Element(OperandA<A>(p.call, t), OperandB<B>(p.call, t), i, j, i_end, d.n, k_end, interval, p.short_sums);
    if (i >= i_end || j >= d.n || (k_end == 0 && d.accumulate)) continue;
    Store(p.call, (by_tokens ? t.group * d.m : t.first) + i, j, sum);
  }
}

template <typename A, typename B>
void Launch(const PlainCall& call, cudaStream_t stream) {
  const ProductDescription& d = call.description;
  PlainParams p;
  p.call = call;
  p.m_tiles = static_cast<int>((d.m + kPlainBlock - 1) / kPlainBlock);
  p.n_tiles = static_cast<int>((d.n + kPlainBlock - 1) / kPlainBlock);
  p.rows = static_cast<int>(Rows(d));
  p.short_sums = d.fp8() && d.how.hopper;
  LaunchKernel(PlainKernel<A, B>, dim3(static_cast<unsigned>(call.grid)), kThreads, 0, stream, p);
}

__global__ void ZeroKernel(uint8_t* c, int64_t rows, int64_t row_bytes, int64_t stride_bytes) {
  const int64_t all = rows * row_bytes, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    c[i / row_bytes * stride_bytes + i % row_bytes] = 0;
  }
}

}  // namespace

void LaunchGroupedPlain(const PlainCall& call, cudaStream_t stream) {
  const DType a = call.description.a_type, b = call.description.b_type;
  if (a == DType::kF32) return Launch<float, float>(call, stream);
  if (a == DType::kBF16) return Launch<__nv_bfloat16, __nv_bfloat16>(call, stream);
  if (a == DType::kE4M3) {
    return b == DType::kE4M3 ? Launch<__nv_fp8_e4m3, __nv_fp8_e4m3>(call, stream)
                             : Launch<__nv_fp8_e4m3, __nv_fp8_e5m2>(call, stream);
  }
  CHECK(a == DType::kE5M2);
  return b == DType::kE4M3 ? Launch<__nv_fp8_e5m2, __nv_fp8_e4m3>(call, stream)
                           : Launch<__nv_fp8_e5m2, __nv_fp8_e5m2>(call, stream);
}

void LaunchZero(const ProductDescription& d, void* c, cudaStream_t stream) {
  // Only an empty k comes here: then c of a grouped product by tokens is a stack, else as high as its tokens.
  const int64_t rows = d.by_tokens() ? d.matrices() * d.m : d.m;
  LaunchKernel(ZeroKernel, dim3(256), 256, 0, stream, static_cast<uint8_t*>(c), rows, BytesOf(d.c_type, d.n),
               BytesOf(d.c_type, d.c_stride));
}

}  // namespace shoestring::cuda
