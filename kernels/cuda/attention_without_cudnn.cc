// Stands in for attention_cudnn.cc in a build without the frontend's headers: refuses every shape, and says why.
#include "base/check.h"
#include "kernels/cuda/attention_cudnn.h"

namespace shoestring::cuda {

class CudnnPlan {};
void CudnnPlanDeleter::operator()(CudnnPlan* plan) const { delete plan; }

class CudnnAttention::Handle {};
CudnnAttention::CudnnAttention() = default;
CudnnAttention::~CudnnAttention() = default;

CudnnPlanPtr CudnnAttention::Plan(const AttentionShape&, const AttentionLayout&, float, bool, bool, std::string* why) {
  *why = "built without cudnn-frontend; run launch/fetch_cudnn_frontend.sh and configure again";
  return nullptr;
}

int64_t CudnnAttention::WorkspaceBytes(const CudnnPlan&) { return 0; }
void CudnnAttention::Forward(CudnnPlan&, const AttentionCall&, const CudnnWorkspace&, cudaStream_t) { CHECK(false); }
void CudnnAttention::Backward(CudnnPlan&, const AttentionCall&, const CudnnWorkspace&, cudaStream_t) { CHECK(false); }

}  // namespace shoestring::cuda
