// Zero, copy and add on the GPU.
#include "kernels/cuda/cuda_operations.h"
#include "kernels/cuda/device.cuh"

namespace shoestring {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // chunks that a thread has under way at once

// y = a (+ b). Chunks are numbered row after row.
template <bool kVector>
__global__ void __launch_bounds__(kThreads)
    AddKernel(InRows a, InRows b, OutRows y, int64_t cols, int64_t row_chunks, int64_t all_chunks) {
  const int64_t first = int64_t{blockIdx.x} * (kThreads * kUnroll) + threadIdx.x;
  float v[kUnroll][kChunk], w[kUnroll][kChunk];
  int64_t row[kUnroll], col[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t chunk = first + u * kThreads;
    if (chunk >= all_chunks) continue;
    // 32 bits where they do: a division of 64 costs more than all the rest.
    row[u] = all_chunks == row_chunks   ? 0
             : all_chunks <= UINT32_MAX ? static_cast<uint32_t>(chunk) / static_cast<uint32_t>(row_chunks)
                                        : chunk / row_chunks;
    const int64_t in_row = chunk - row[u] * row_chunks;
    col[u] = in_row * kChunk;
    const int n = ChunkSize(in_row, cols);
    LoadEither<kVector>(a, row[u], col[u], n, v[u]);
    if (b.data != nullptr) LoadEither<kVector>(b, row[u], col[u], n, w[u]);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    if (first + u * kThreads >= all_chunks) continue;
    if (b.data != nullptr) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[u][i] += w[u][i];
    }
    StoreEither<kVector>(y, row[u], col[u], ChunkSize(col[u] / kChunk, cols), v[u]);
  }
}

// b may be empty.
void AddRows(CudaStream& stream, ConstView a, ConstView b, View y) {
  if (a.empty()) return;
  if (a.contiguous() && (!b || b.contiguous()) && y.contiguous()) {
    a = a.Reshape(1, a.elements());
    if (b) b = b.Reshape(1, b.elements());
    y = y.Reshape(1, y.elements());
  }
  const int64_t row_chunks = Chunks(a.cols), all_chunks = a.rows * row_chunks;
  WithBool(AllowsVectors(a) && AllowsVectors(b) && AllowsVectors(y), [&](auto vector) {
    AddKernel<vector><<<DivideUp(all_chunks, kThreads * kUnroll), kThreads, 0, stream.get()>>>(
        InOf(a), InOf(b), OutOf(y), a.cols, row_chunks, all_chunks);
  });
  CUDA_CHECK_LAUNCH();
}

}  // namespace

void CudaZero(CudaStream& stream, const View& x) {
  if (x.empty()) return;
  if (x.contiguous()) {
    CUDA_CHECK(cudaMemsetAsync(x.data, 0, x.bytes(), stream.get()));
  } else {
    CUDA_CHECK(
        cudaMemset2DAsync(x.data, BytesOf(x.dtype, x.stride), 0, BytesOf(x.dtype, x.cols), x.rows, stream.get()));
  }
}

void CudaCopy(CudaStream& stream, const ConstView& x, const View& y) {
  if (x.empty() || (x.data == y.data && x.dtype == y.dtype && x.stride == y.stride)) return;
  const bool contiguous = x.contiguous() && y.contiguous();
  const bool activations = x.dtype == DType::kF32 || x.dtype == DType::kBF16;
  if (x.dtype != y.dtype || (activations && !contiguous)) return AddRows(stream, x, {}, y);
  const int64_t row = BytesOf(x.dtype, x.cols);
  if (contiguous) {
    CUDA_CHECK(cudaMemcpyAsync(y.data, x.data, x.bytes(), cudaMemcpyDeviceToDevice, stream.get()));
  } else {
    CUDA_CHECK(cudaMemcpy2DAsync(y.data, BytesOf(y.dtype, y.stride), x.data, BytesOf(x.dtype, x.stride), row, x.rows,
                                 cudaMemcpyDeviceToDevice, stream.get()));
  }
}

void CudaAdd(CudaStream& stream, const ConstView& a, const ConstView& b, const View& y) { AddRows(stream, a, b, y); }

}  // namespace shoestring
