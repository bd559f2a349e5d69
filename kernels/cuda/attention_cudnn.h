// The attention core by cuDNN, through cudnn-frontend (NVIDIA, MIT licence): the one place that knows either.
//
// Two bodies: attention_cudnn.cc, and attention_without_cudnn.cc for a build that has no headers of the frontend
// (launch/fetch_cudnn_frontend.sh brings them).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/attention_config.h"
#include "kernels/cuda/attention_own.h"

namespace shoestring::cuda {

// A finished plan of one shape, layout and direction.
class CudnnPlan;
struct CudnnPlanDeleter {
  void operator()(CudnnPlan* plan) const;
};
using CudnnPlanPtr = std::unique_ptr<CudnnPlan, CudnnPlanDeleter>;

class CudnnAttention {
 public:
  CudnnAttention();
  ~CudnnAttention();

  // Causal, scores times `scale`. Backward is asked for as a deterministic algorithm if `deterministic`. Null, and why,
  // if cuDNN has no such plan. Strides are those of `layout`; keys and their gradients lie as CudnnWorkspace says.
  CudnnPlanPtr Plan(const AttentionShape& shape, const AttentionLayout& layout, float scale, bool backward,
                    bool deterministic, std::string* why);
  static int64_t WorkspaceBytes(const CudnnPlan& plan);

  // `parts` of call.workspace; `library_bytes` of them is at least WorkspaceBytes.
  void Forward(CudnnPlan& plan, const AttentionCall& call, const CudnnWorkspace& parts, cudaStream_t stream);
  void Backward(CudnnPlan& plan, const AttentionCall& call, const CudnnWorkspace& parts, cudaStream_t stream);

 private:
  class Handle;
  std::unique_ptr<Handle> handle_;  // made when the first plan is asked for
};

}  // namespace shoestring::cuda
