// Calls the driver's encoder of tensor maps.
#include "kernels/cuda/gemm_tensor_map.h"

#include <cuda_runtime_api.h>

#include <sstream>

#include "kernels/cuda/cuda_check.h"

namespace shoestring::cuda {
namespace {

using Encoder = decltype(&cuTensorMapEncodeTiled);

Encoder FindEncoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned kSince = 12000;  // CUDA 12.0
  CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince, cudaEnableDefault, &found));
  CHECK(found == cudaDriverEntryPointSuccess);
  return reinterpret_cast<Encoder>(function);
}

}  // namespace

CUtensorMap MakeTensorMap(const TileSource& matrix, DType type, int box_cols, int box_rows) {
  static const Encoder encode = FindEncoder();
  CUtensorMap map;
  const cuuint64_t extent[] = {static_cast<cuuint64_t>(matrix.cols), static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t stride_bytes[] = {static_cast<cuuint64_t>(BytesOf(type, matrix.stride))};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_cols), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t step[] = {1, 1};
  const CUresult result =
      encode(&map, type == DType::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 2,
             const_cast<void*>(matrix.data), extent, stride_bytes, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    std::ostringstream what;
    what << "cuTensorMapEncodeTiled: error " << result << " for a matrix [" << matrix.rows << ", " << matrix.cols
         << "] with stride " << matrix.stride << " at " << matrix.data;
    ::shoestring::internal::CheckFailed(__FILE__, __LINE__, what.str());
  }
  return map;
}

}  // namespace shoestring::cuda
