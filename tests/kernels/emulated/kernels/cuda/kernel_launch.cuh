// Stands in for kernels/cuda/kernel_launch.cuh: runs kernels as fibers, at once.
#pragma once

#include "tests/kernels/emulated/cuda_fibers.h"

namespace shoestring::cuda {

template <typename T>
T* DynamicShared() {
  return reinterpret_cast<T*>(emulated::TheFibers().shared.data());
}

template <typename... Parameters, typename... Arguments>
void LaunchKernel(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared_bytes, cudaStream_t,
                  const Arguments&... arguments) {
  emulated::TheFibers().Run(grid, threads, shared_bytes, [&] { kernel(arguments...); });
}

}  // namespace shoestring::cuda
