// The CUDA backend: the whole menu on one GPU.
#pragma once

#include <memory>

#include "kernels/backend.h"
#include "kernels/cuda_module.h"

namespace shoestring {

// Null, and `failure`, if the device cannot be used.
std::unique_ptr<Backend> MakeCudaBackend(const CudaBackendOptions& options, CudaFailure& failure);

}  // namespace shoestring
