// Stands in for kernels/cuda/gemm_wgmma.cuh: reads tiles through their descriptors and sums in f32, in the order of k.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <cstring>

#include "kernels/cuda/gemm_pipeline.cuh"
#include "kernels/cuda/gemm_tile_layout.h"

namespace shoestring::cuda {

struct WarpgroupSum {
  float d[64];
};

inline void WarpgroupArrive() {}
inline void WarpgroupCommit() {}
// All threads of a warpgroup call it; none goes on before all have.
template <int kPending>
void WarpgroupWait() {
  auto& f = emulated::TheFibers();
  f.Meet(50 + threadIdx.x / 128, 128);
}
inline void HoldSum(WarpgroupSum&) {}

// Byte `byte` along k of row `row` of a K-major tile; or, of an MN-major one, step k of row `row`.
inline const uint8_t* TileByte(uint64_t descriptor, bool across, int row, int k, int element_bytes) {
  const auto start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const auto leading = static_cast<uint32_t>(descriptor >> 16 & 0x3fff) << 4;
  const auto stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  CHECK_EQ(descriptor >> 62, 1u);
  const uint32_t address = across ? start + row / 64 * leading + k / 8 * stride + k % 8 * 128 + row % 64 * element_bytes
                                  : start + row / 8 * stride + row % 8 * 128 + k * element_bytes;
  return SharedByte(Swizzle128(address));
}

template <typename A, typename B>
void MultiplyTiles(WarpgroupSum& sum, uint64_t a, uint64_t b, int add, int steps, bool a_across, bool b_across) {
  const int thread = static_cast<int>(threadIdx.x % 128);
  for (int i = 0; i < 64; ++i) {
    float x = add != 0 ? sum.d[i] : 0.0f;
    for (int k = 0; k < steps; ++k) {
      A left;
      B right;
      std::memcpy(&left, TileByte(a, a_across, SumRow(thread, i), k, sizeof(A)), sizeof(A));
      std::memcpy(&right, TileByte(b, b_across, SumColumn(thread, i), k, sizeof(B)), sizeof(B));
      x = __builtin_fmaf(static_cast<float>(left), static_cast<float>(right), x);
    }
    sum.d[i] = x;
  }
}

inline void MultiplyE4M3E4M3(WarpgroupSum& sum, uint64_t a, uint64_t b, int add) {
  MultiplyTiles<__nv_fp8_e4m3, __nv_fp8_e4m3>(sum, a, b, add, 32, false, false);
}
inline void MultiplyE5M2E4M3(WarpgroupSum& sum, uint64_t a, uint64_t b, int add) {
  MultiplyTiles<__nv_fp8_e5m2, __nv_fp8_e4m3>(sum, a, b, add, 32, false, false);
}
template <bool kTransposeA, bool kTransposeB>
void MultiplyBF16(WarpgroupSum& sum, uint64_t a, uint64_t b, int add) {
  MultiplyTiles<__nv_bfloat16, __nv_bfloat16>(sum, a, b, add, 16, kTransposeA, kTransposeB);
}

}  // namespace shoestring::cuda
