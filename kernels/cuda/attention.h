// The attention core on the GPU: by cuDNN where it has a plan for the shape, by a kernel of our own elsewhere.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/cuda_context.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring {

// Handles and plans of one backend; used by one thread at a time. Arguments have passed Backend's checks.
class CudaAttention {
 public:
  explicit CudaAttention(const CudaContext& context);
  ~CudaAttention();
  int64_t WorkspaceBytes(const AttentionShape& shape, bool backward) const;
  void Forward(CudaStream& stream, const AttentionArgs& args, const View& out, const View& log_sum_exp,
               const View& workspace);
  void Backward(CudaStream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                const View& workspace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace shoestring
