// Random contents and a plain copy kernel for the probe.
#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "tests/gpu/probe/fill.h"
#include "tests/gpu/probe/report.h"

namespace shoestring::probe {
namespace {

__device__ uint32_t Mix(uint64_t i, unsigned seed) {
  uint64_t x = i * 0x9E3779B97F4A7C15ull + seed;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return static_cast<uint32_t>(x >> 32);
}

// The sum of four bytes is near enough to normal: mean 0, deviation 1.
__device__ float Bell(uint64_t i, unsigned seed) {
  const uint32_t bits = Mix(i, seed);
  const int sum = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24);
  return (sum - 510) * (1.0f / 147.8f);
}

__global__ void Bf16Kernel(__nv_bfloat16* x, int64_t n, unsigned seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    x[i] = __float2bfloat16(Bell(i, seed));
  }
}

__global__ void E4m3Kernel(__nv_fp8_e4m3* x, int64_t n, unsigned seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    x[i] = __nv_fp8_e4m3(64.0f * Bell(i, seed));
  }
}

__global__ void ScaleKernel(float* x, int64_t n, unsigned seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    x[i] = exp2f(-10.0f + 6.0f * (Mix(i, seed) >> 8) * 0x1p-24f);
  }
}

__global__ void __launch_bounds__(512) CopyKernel(const uint4* __restrict__ from, uint4* __restrict__ to, int64_t n) {
  constexpr int kUnroll = 4;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  for (; i + (kUnroll - 1) * step < n; i += kUnroll * step) {
    uint4 held[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) held[k] = __ldcs(from + i + k * step);
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) __stcs(to + i + k * step, held[k]);
  }
  for (; i < n; i += step) to[i] = from[i];
}

constexpr int kBlocks = 1024;

}  // namespace

void FillBf16(cudaStream_t stream, void* x, int64_t elements, unsigned seed) {
  Bf16Kernel<<<kBlocks, 256, 0, stream>>>(static_cast<__nv_bfloat16*>(x), elements, seed);
  CheckCuda(cudaGetLastError(), "filling with bf16");
}

void FillE4m3(cudaStream_t stream, void* x, int64_t elements, unsigned seed) {
  E4m3Kernel<<<kBlocks, 256, 0, stream>>>(static_cast<__nv_fp8_e4m3*>(x), elements, seed);
  CheckCuda(cudaGetLastError(), "filling with e4m3");
}

void FillScale(cudaStream_t stream, float* x, int64_t elements, unsigned seed) {
  ScaleKernel<<<kBlocks, 256, 0, stream>>>(x, elements, seed);
  CheckCuda(cudaGetLastError(), "filling with scales");
}

void CopyByKernel(cudaStream_t stream, const void* from, void* to, int64_t bytes, int blocks) {
  CopyKernel<<<blocks, 512, 0, stream>>>(static_cast<const uint4*>(from), static_cast<uint4*>(to), bytes / 16);
  CheckCuda(cudaGetLastError(), "copying");
}

}  // namespace shoestring::probe
