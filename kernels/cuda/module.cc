// What the module exports for the backend; NCCL's factory lies in parallel/nccl.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda_module.h"

extern "C" {

const char* shoestring_cuda_abi() { return SHOESTRING_MODULE_ABI; }

shoestring::Backend* shoestring_cuda_make_backend(const shoestring::CudaBackendOptions& options,
                                                  shoestring::CudaFailure& failure) {
  return shoestring::MakeCudaBackend(options, failure).release();
}

void shoestring_cuda_describe(shoestring::CudaMachine& machine) { shoestring::DescribeCuda(machine); }

}  // extern "C"
