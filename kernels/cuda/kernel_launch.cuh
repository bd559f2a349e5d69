// Launching a kernel and its dynamic shared memory, as two functions: so that tests can run the same kernels on a CPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/cuda_check.h"

namespace shoestring::cuda {

// The block's dynamic shared memory.
template <typename T>
__device__ T* DynamicShared() {
  extern __shared__ __align__(16) uint8_t dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
}

// Enqueues kernel(arguments...); aborts the rank if that fails.
template <typename... Parameters, typename... Arguments>
void LaunchKernel(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared_bytes, cudaStream_t stream,
                  const Arguments&... arguments) {
  constexpr int64_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  }
  kernel<<<grid, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes), stream>>>(arguments...);
  CUDA_CHECK_LAUNCH();
}

}  // namespace shoestring::cuda
