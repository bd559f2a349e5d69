// Modules that are not libshoestring_cuda.so, each wrong in its way, or right but for the GPU: FAKE says which.
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda_module.h"

#define FAKE_NOTHING 0     // exports nothing of ours
#define FAKE_OTHER_ABI 1   // from other interfaces
#define FAKE_WORKING 2     // computes on the CPU, with code that it takes from the executable
#define FAKE_NEEDS_NCCL 3  // calls a library that must be found first

extern "C" {

#if FAKE == FAKE_OTHER_ABI
const char* shoestring_cuda_abi() { return "0123456789abcdef"; }
#elif FAKE == FAKE_WORKING || FAKE == FAKE_NEEDS_NCCL
const char* shoestring_cuda_abi() { return SHOESTRING_MODULE_ABI; }
#endif

#if FAKE == FAKE_WORKING
shoestring::Backend* shoestring_cuda_make_backend(const shoestring::CudaBackendOptions& options,
                                                  shoestring::CudaFailure& failure) {
  using Kind = shoestring::CudaFailure::Kind;
  if (options.device == 0 || options.shared) return shoestring::MakeCpuBackend({}).release();
  failure = {options.device == 1 ? Kind::kUnavailable : Kind::kExhausted, "CUDA: not this one; take another"};
  return nullptr;
}
void shoestring_cuda_describe(shoestring::CudaMachine& machine) {
  machine = {13000, {{"a GPU that is none", int64_t{3} << 29, 9, 0}}};
}
#elif FAKE == FAKE_NEEDS_NCCL
int fake_nccl_answer();
int fake_module_answer() { return fake_nccl_answer(); }
#endif

}  // extern "C"
