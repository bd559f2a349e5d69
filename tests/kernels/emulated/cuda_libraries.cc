// Stands in for the CUDA runtime, the driver's tensor maps and cuBLASLt: memory is the host's, work is done at once.
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/cuda/gemm_library.h"
#include "kernels/cuda/gemm_tensor_map.h"
#include "tests/kernels/emulated/kernels/cuda/gemm_pipeline.cuh"
#include "tests/kernels/emulated/kernels/cuda/gemm_wgmma.cuh"
#include "tests/kernels/emulated/kernels/cuda/kernel_launch.cuh"

extern "C" {

cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*p, 0xff, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaMalloc(p, bytes); }
cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "emulated"; }
const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int) { return cudaErrorNoDevice; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int) { return cudaErrorNoDevice; }

}  // extern "C"

namespace shoestring::cuda {

CUtensorMap MakeTensorMap(const TileSource& matrix, DType type, int box_cols, int box_rows) {
  CHECK_EQ(BytesOf(type, box_cols), 128);
  CHECK_EQ(BytesOf(type, matrix.stride) % 16, 0);
  CHECK_EQ(reinterpret_cast<uintptr_t>(matrix.data) % 16, 0u);
  EmulatedMap map = {static_cast<const uint8_t*>(matrix.data), matrix.rows, BytesOf(type, matrix.cols),
                     BytesOf(type, matrix.stride), box_rows};
  if (type == DType::kBF16) map.row_bytes = -map.row_bytes;
  CUtensorMap out;
  std::memcpy(&out, &map, sizeof(map));
  return out;
}

namespace {

float ValueAt(const void* data, DType type, int64_t i) {
  switch (type) {
    case DType::kF32: return static_cast<const float*>(data)[i];
    case DType::kBF16: return static_cast<float>(static_cast<const BF16*>(data)[i]);
    case DType::kE4M3: return static_cast<float>(static_cast<const __nv_fp8_e4m3*>(data)[i]);
    default: return static_cast<float>(static_cast<const __nv_fp8_e5m2*>(data)[i]);
  }
}

}  // namespace

// The library by the words of its documentation: operands along k, scales where gemm_scale_layout.h says.
class LibraryPlan {
 public:
  ProductDescription d;
  bool along_k_a = false, along_k_b = false;
  int64_t k = 0;
};
void LibraryPlanDeleter::operator()(LibraryPlan* plan) const { delete plan; }
GemmLibrary::GemmLibrary() = default;
GemmLibrary::~GemmLibrary() = default;

LibraryPlanPtr GemmLibrary::Plan(const ProductDescription& d, const ProductConfig& config, const void*, std::string*) {
  LibraryPlanPtr plan(new LibraryPlan);
  plan->d = d;
  plan->along_k_a = d.fp8() || d.layout != GemmLayout::kTN;
  plan->along_k_b = d.fp8() || d.layout == GemmLayout::kNT;
  plan->k = d.fp8() && d.by_tokens() ? config.k_padded : d.k;
  if (config.transpose_a) plan->d.a_stride = config.k_padded;
  if (config.transpose_b) plan->d.b_stride = config.k_padded;
  return plan;
}
std::string GemmLibrary::ToString(const LibraryPlan&) { return "emulated"; }

void GemmLibrary::Run(LibraryPlan& plan, const LibraryOperands& o, cudaStream_t) {
  const ProductDescription& d = plan.d;
  const ScaleLayout a_layout = VectorScaleLayout(d.m, plan.k);
  const ScaleLayout b_layout = d.by_tokens() ? VectorScaleLayout(d.n, plan.k) : BlockScaleLayout(d.n, plan.k);
  for (int64_t i = 0; i < d.m; ++i) {
    for (int64_t j = 0; j < d.n; ++j) {
      float acc = 0;
      for (int64_t start = 0; start < plan.k; start += 128) {
        float sum = 0;
        for (int64_t k = start; k < std::min(plan.k, start + 128); ++k) {
          const float a = ValueAt(o.a, d.a_type, plan.along_k_a ? i * d.a_stride + k : k * d.a_stride + i);
          const float b = ValueAt(o.b, d.b_type, plan.along_k_b ? j * d.b_stride + k : k * d.b_stride + j);
          sum = __builtin_fmaf(a, b, sum);
        }
        float scale = 1;
        if (d.fp8()) {
          const int64_t at = d.by_tokens() ? VectorScaleIndex(b_layout, j, start) : BlockScaleIndex(b_layout, j, start);
          scale = o.a_scales[VectorScaleIndex(a_layout, i, start)] * o.b_scales[at];
        }
        acc = __builtin_fmaf(sum, scale, acc);
      }
      const int64_t at = i * d.c_stride + j;
      if (d.c_type == DType::kBF16) {
        static_cast<BF16*>(o.c)[at] = BF16(acc);
      } else {
        float& c = static_cast<float*>(o.c)[at];
        c = d.accumulate ? c + acc : acc;
      }
    }
  }
}

}  // namespace shoestring::cuda
