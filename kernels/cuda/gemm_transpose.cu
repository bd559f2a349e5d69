// Transposes codes in tiles of 64 x 64 through shared memory, four by four in registers.
#include <algorithm>

#include "kernels/cuda/gemm_transpose.h"
#include "kernels/cuda/kernel_launch.cuh"

namespace shoestring::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kThreads = 256;
constexpr int kWords = kTile / 4;

// Rows [first, end) of `from` go to columns from `column` on, and to rows from `row` on, of `to`.
struct TileSource {
  int64_t first, end;
  int64_t row, column;
};

// The block's 64 padded rows, number `tile` of matrix `matrix`; end <= first: nothing to do. All threads call it.
__device__ TileSource FindRows(const TransposeCall& c, int64_t tile, int64_t matrix) {
  if (c.offsets == nullptr) {
    const int64_t begin = matrix * c.rows;
    return {begin + tile * kTile, begin + c.rows, matrix * c.cols, tile * kTile};
  }
  __shared__ TileSource found;
  if (threadIdx.x == 0) found = {0, -1, 0, 0};
  __syncthreads();
  const int64_t at = tile * kTile;
  for (int64_t e = threadIdx.x; e < c.groups; e += kThreads) {
    const int64_t first = c.offsets[e], end = c.offsets[e + 1];
    const int64_t begin = (first / 128 + e) * 128;
    if (at >= begin && at < begin + (end - first + 127) / 128 * 128) {
      found.first = first + (at - begin);
      found.end = end;
      found.column = at;
    }
  }
  __syncthreads();
  return found;
}

// Four neighbouring codes of a row, zeros past its end.
__device__ uint32_t LoadWord(const uint8_t* row, int64_t column, int64_t cols) {
  if (column + 4 <= cols && (reinterpret_cast<uintptr_t>(row + column) & 3) == 0) {
    return *reinterpret_cast<const uint32_t*>(row + column);
  }
  uint32_t word = 0;
  for (int i = 0; i < 4 && column + i < cols; ++i) word |= static_cast<uint32_t>(row[column + i]) << (8 * i);
  return word;
}

// Rows of bytes become columns.
__device__ void Transpose4(uint32_t (&w)[4]) {
  const uint32_t a = __byte_perm(w[0], w[1], 0x5140), b = __byte_perm(w[0], w[1], 0x7362);
  const uint32_t c = __byte_perm(w[2], w[3], 0x5140), d = __byte_perm(w[2], w[3], 0x7362);
  w[0] = __byte_perm(a, c, 0x5410);
  w[1] = __byte_perm(a, c, 0x7632);
  w[2] = __byte_perm(b, d, 0x5410);
  w[3] = __byte_perm(b, d, 0x7632);
}

__global__ void __launch_bounds__(kThreads) TransposeKernel(const TransposeCall c) {
  __shared__ uint32_t words[kTile][kWords + 1];
  const TileSource source = FindRows(c, blockIdx.y, blockIdx.z);
  if (c.offsets != nullptr && source.end < 0) return;
  const int64_t column0 = static_cast<int64_t>(blockIdx.x) * kTile;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kWords; i += kThreads) {
    const int r = i / kWords, w = i % kWords;
    const int64_t row = source.first + r;
    words[r][w] = row < source.end ? LoadWord(c.from + row * c.from_stride, column0 + w * 4, c.cols) : 0;
  }
  __syncthreads();
  const int r = static_cast<int>(threadIdx.x) % kWords, w = static_cast<int>(threadIdx.x) / kWords;
  uint32_t block[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) block[i] = words[4 * r + i][w];
  Transpose4(block);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t column = column0 + 4 * w + i;  // of `from`, a row of `to`
    if (column >= c.cols) break;
    uint8_t* to = c.to + (source.row + column) * c.to_stride + source.column + 4 * r;
    *reinterpret_cast<uint32_t*>(to) = block[i];
  }
}

__global__ void PackScalesKernel(const float* from, ScalePacking packing, float* to) {
  const ScaleLayout& layout = packing.to;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < layout.elements(); i += step) {
    const int64_t outer = i / layout.stride, inner = i % layout.stride;
    to[i] = inner < layout.inner ? from[outer * packing.outer_stride + inner * packing.inner_stride] : 0.0f;
  }
}

}  // namespace

void LaunchTranspose(const TransposeCall& call, cudaStream_t stream) {
  const int64_t padded_rows = call.to_stride;
  CHECK_EQ(padded_rows % 128, 0);
  const dim3 grid(static_cast<unsigned>((call.cols + kTile - 1) / kTile), static_cast<unsigned>(padded_rows / kTile),
                  static_cast<unsigned>(call.offsets != nullptr ? 1 : call.matrices));
  LaunchKernel(TransposeKernel, grid, kThreads, 0, stream, call);
}

void LaunchPackScales(const float* from, const ScalePacking& packing, float* to, cudaStream_t stream) {
  const int64_t blocks = std::clamp<int64_t>((packing.to.elements() + 255) / 256, 1, 1024);
  LaunchKernel(PackScalesKernel, dim3(static_cast<unsigned>(blocks)), 256, 0, stream, from, packing, to);
}

}  // namespace shoestring::cuda
