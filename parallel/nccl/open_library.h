// Gets the NCCL of libshoestring_cuda.so.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/cuda_module.h"
#include "parallel/nccl/library.h"

namespace shoestring {

// NCCL for one device of the module's; lives as long as the process and is never given back, because a hung abort may
// use it to the end. FAILED_PRECONDITION: an NCCL older than the one that the module was built with, or another module.
absl::StatusOr<NcclLibrary*> OpenNcclLibrary(const CudaModule& module, int device);

}  // namespace shoestring
