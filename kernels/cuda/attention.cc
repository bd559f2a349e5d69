// Chooses who computes attention, once a shape, layout and direction, and hands the tensors over.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <string>

#include "base/log.h"
#include "kernels/cuda/attention_config.h"
#include "kernels/cuda/attention_cudnn.h"
#include "kernels/cuda/attention_own.h"

namespace shoestring {
namespace {

using cuda::AttentionCall;
using cuda::AttentionLayout;

// All that a plan depends on.
using PlanKey = std::array<int64_t, 17>;
PlanKey KeyOf(const AttentionShape& s, const AttentionLayout& l, float scale, bool backward) {
  return {s.tokens,
          s.sequence_length,
          s.heads,
          s.nope_dim,
          s.rope_dim,
          s.value_dim,
          static_cast<int64_t>(l.dtype),
          l.documents,
          l.q_stride,
          l.kv_stride,
          l.out_stride,
          l.d_out_stride,
          l.d_q_stride,
          l.d_kv_stride,
          l.least_alignment_bytes,
          std::bit_cast<int32_t>(scale),
          backward};
}

struct Plan {
  cuda::CudnnPlanPtr cudnn;  // null: our own kernels
  cuda::CudnnWorkspace parts;
};

int64_t LeastAlignment(std::initializer_list<const void*> addresses) {
  uintptr_t bits = 256;
  for (const void* address : addresses) bits |= reinterpret_cast<uintptr_t>(address);
  return static_cast<int64_t>(bits & (~bits + 1));
}

AttentionCall CallOf(const AttentionArgs& args, const View& workspace) {
  AttentionCall call;
  call.shape = args.shape;
  call.bf16 = args.q.dtype == DType::kBF16;
  call.scale = static_cast<float>(args.scale);
  call.q = args.q.data, call.q_stride = args.q.stride;
  call.kv = args.kv.data, call.kv_stride = args.kv.stride;
  call.k_rope = args.k_rope.data, call.k_rope_stride = args.k_rope.stride;
  call.first_visible = reinterpret_cast<const int32_t*>(args.first_visible.data);
  call.workspace = workspace.data;
  return call;
}

std::string Describe(const AttentionShape& s, DType dtype, bool backward) {
  return std::string(backward ? "attention backward" : "attention") + " " + Name(dtype) + " tokens " +
         std::to_string(s.tokens) + " sequence " + std::to_string(s.sequence_length) + " heads " +
         std::to_string(s.heads) + " " + std::to_string(s.nope_dim + s.rope_dim) + "/" + std::to_string(s.value_dim);
}

}  // namespace

class CudaAttention::Impl {
 public:
  // For either dtype and either body, contiguous or not: what cuDNN asks for depends on the shape only.
  int64_t WorkspaceBytes(const AttentionShape& shape, bool backward) {
    const int64_t own = cuda::OwnWorkspace(shape, backward).total_bytes();
    const Plan& plan = PlanOf(shape, cuda::ContiguousLayout(shape, backward), /*scale=*/1, backward);
    return std::max(own, plan.cudnn == nullptr ? 0 : plan.parts.total_bytes());
  }

  void Forward(CudaStream& stream, const AttentionArgs& args, const View& out, const View& log_sum_exp,
               const View& workspace) {
    AttentionCall call = CallOf(args, workspace);
    call.out = out.data, call.out_stride = out.stride;
    call.log_sum_exp = reinterpret_cast<float*>(log_sum_exp.data), call.log_sum_exp_stride = log_sum_exp.stride;
    AttentionLayout layout = LayoutOf(args);
    layout.out_stride = out.stride;
    layout.least_alignment_bytes = LeastAlignment({args.q.data, args.kv.data, out.data, workspace.data});
    const Plan& plan = PlanOf(args.shape, layout, call.scale, /*backward=*/false);
    if (plan.cudnn == nullptr) return cuda::LaunchOwnAttention(call, stream.get());
    RequireWorkspace(plan, workspace);
    cudnn_.Forward(*plan.cudnn, call, plan.parts, stream.get());
  }

  void Backward(CudaStream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                const View& workspace) {
    AttentionCall call = CallOf(args, workspace);
    call.out = const_cast<std::byte*>(grads.out.data), call.out_stride = grads.out.stride;
    // Read only, in backward.
    call.log_sum_exp = reinterpret_cast<float*>(const_cast<std::byte*>(grads.log_sum_exp.data));
    call.log_sum_exp_stride = grads.log_sum_exp.stride;
    call.d_out = grads.d_out.data, call.d_out_stride = grads.d_out.stride;
    call.d_q = grads.d_q.data, call.d_q_stride = grads.d_q.stride;
    call.d_kv = grads.d_kv.data, call.d_kv_stride = grads.d_kv.stride;
    call.d_k_rope = grads.d_k_rope.data, call.d_k_rope_stride = grads.d_k_rope.stride;
    AttentionLayout layout = LayoutOf(args);
    layout.out_stride = grads.out.stride;
    layout.d_out_stride = grads.d_out.stride;
    layout.d_q_stride = grads.d_q.stride;
    layout.d_kv_stride = grads.d_kv.stride;
    layout.least_alignment_bytes = LeastAlignment(
        {args.q.data, args.kv.data, grads.out.data, grads.d_out.data, grads.d_q.data, grads.d_kv.data, workspace.data});
    const Plan& plan = PlanOf(args.shape, layout, call.scale, /*backward=*/true);
    if (plan.cudnn == nullptr) return cuda::LaunchOwnAttentionBackward(call, stream.get());
    RequireWorkspace(plan, workspace);
    cudnn_.Backward(*plan.cudnn, call, plan.parts, stream.get());
  }

 private:
  static AttentionLayout LayoutOf(const AttentionArgs& args) {
    AttentionLayout layout;
    layout.dtype = args.q.dtype;
    layout.documents = static_cast<bool>(args.first_visible);
    layout.q_stride = args.q.stride;
    layout.kv_stride = args.kv.stride;
    return layout;
  }

  static void RequireWorkspace(const Plan& plan, const View& workspace) {
    CHECK_LE(plan.parts.total_bytes(), workspace.bytes());
  }

  const Plan& PlanOf(const AttentionShape& shape, const AttentionLayout& layout, float scale, bool backward) {
    const PlanKey key = KeyOf(shape, layout, scale, backward);
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
    Plan& plan = plans_[key];
    std::string why = shape.tokens == 0 ? "there are no tokens" : cuda::CudnnRefusal(shape, layout);
    if (why.empty()) plan.cudnn = cudnn_.Plan(shape, layout, scale, backward, /*deterministic=*/true, &why);
    if (plan.cudnn != nullptr) {
      plan.parts = cuda::CudnnParts(shape, backward, cuda::CudnnAttention::WorkspaceBytes(*plan.cudnn));
      LogInfo(Describe(shape, layout.dtype, backward) + ": cuDNN, workspace " +
              std::to_string(plan.parts.library_bytes) + " bytes");
      return plan;
    }
    const std::string own = cuda::OwnAttentionRefusal(shape);
    if (!own.empty()) internal::CheckFailed(__FILE__, __LINE__, Describe(shape, layout.dtype, backward) + ": " + own);
    LogInfo(Describe(shape, layout.dtype, backward) + ": our own kernels (cuDNN: " + why + ")");
    return plan;
  }

  cuda::CudnnAttention cudnn_;
  std::map<PlanKey, Plan> plans_;
};

// The context is not needed: all that the kernels ask of a device is what compute capability 9.0 has.
CudaAttention::CudaAttention(const CudaContext&) : impl_(std::make_unique<Impl>()) {}
CudaAttention::~CudaAttention() = default;

int64_t CudaAttention::WorkspaceBytes(const AttentionShape& shape, bool backward) const {
  return impl_->WorkspaceBytes(shape, backward);
}

void CudaAttention::Forward(CudaStream& stream, const AttentionArgs& args, const View& out, const View& log_sum_exp,
                            const View& workspace) {
  impl_->Forward(stream, args, out, log_sum_exp, workspace);
}

void CudaAttention::Backward(CudaStream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                             const View& workspace) {
  impl_->Backward(stream, args, grads, workspace);
}

}  // namespace shoestring
