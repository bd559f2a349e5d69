// Matrix products on the GPU: dense ones by cuBLASLt, grouped ones and what libraries refuse by kernels of our own.
#pragma once

#include <memory>

#include "kernels/cuda/cuda_context.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring {

// Handles and chosen algorithms of one backend; used by one thread at a time. Arguments have passed Backend's checks.
// Everything is enqueued on the stream; scratch is the stream's workspace. Nothing is allocated after the first call
// with a shape.
class CudaGemm {
 public:
  explicit CudaGemm(const CudaContext& context);
  ~CudaGemm();
  void Run(CudaStream& stream, GemmLayout layout, const Operand& a, const Operand& b, const View& c, bool accumulate,
           const Fp8Accumulation& how);
  void RunGrouped(CudaStream& stream, GemmLayout layout, const Segments& segments, const Operand& a, const Operand& b,
                  const View& c, bool accumulate, const Fp8Accumulation& how);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace shoestring
