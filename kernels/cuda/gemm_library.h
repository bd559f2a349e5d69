// Dense products by cuBLASLt: bf16, f32 (never TF32) and FP8 with block scales. Everything that knows the library is
// here.
//
// cuBLASLt thinks in columns, so a row-major c = op(a) op(b) is asked of it as c^T = op(b)^T op(a)^T: its first operand
// is our b. Sums: in FP32, split over k if the chosen algorithm does so, in an order of the library's; its FP8 products
// are promoted to FP32 in software, FAST_ACCUM off (docs/numerics.md, "On Hopper").
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/gemm_config.h"

namespace shoestring::cuda {

// Operands as they lie in device memory. FP8: both along the contracted dimension, scales packed as
// gemm_scale_layout.h says.
struct LibraryOperands {
  const void* a = nullptr;
  const float* a_scales = nullptr;
  const void* b = nullptr;
  const float* b_scales = nullptr;
  void* c = nullptr;
  void* workspace = nullptr;  // ProductWorkspace::library_bytes, at a multiple of 256 bytes
};

// The library's descriptions of one product and the algorithm that its heuristic chose for it.
class LibraryPlan;
struct LibraryPlanDeleter {
  void operator()(LibraryPlan* plan) const;
};
using LibraryPlanPtr = std::unique_ptr<LibraryPlan, LibraryPlanDeleter>;

class GemmLibrary {
 public:
  // Aborts the rank if the library cannot be started.
  GemmLibrary();
  ~GemmLibrary();
  GemmLibrary(const GemmLibrary&) = delete;
  GemmLibrary& operator=(const GemmLibrary&) = delete;

  // Null, and why, if the library has no algorithm for this. `workspace`: of the stream; only its address is looked at,
  // in the place of the scales' later ones.
  LibraryPlanPtr Plan(const ProductDescription& description, const ProductConfig& config, const void* workspace,
                      std::string* why);
  // What was chosen: "algorithm 66 tile 393 stages 36 split 1 workspace 0".
  static std::string ToString(const LibraryPlan& plan);
  void Run(LibraryPlan& plan, const LibraryOperands& operands, cudaStream_t stream);

 private:
  cublasLtHandle_t handle_ = nullptr;
};

}  // namespace shoestring::cuda
