// The probe's item about cuDNN: does it plan causal attention with heads of 192 and 128, deterministic or not, with
// what workspace, and how fast is it.
#include <cmath>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cuda/attention_cudnn.h"
#include "tests/gpu/probe/fill.h"
#include "tests/gpu/probe/report.h"

namespace shoestring::probe {
namespace {

using cuda::AttentionCall;
using cuda::CudnnAttention;
using cuda::CudnnPlanPtr;
using cuda::CudnnWorkspace;

AttentionShape V3(int64_t sequences, int64_t sequence_length, int64_t heads) {
  AttentionShape shape;
  shape.tokens = sequences * sequence_length;
  shape.sequence_length = sequence_length;
  shape.heads = heads;
  shape.nope_dim = 128;
  shape.rope_dim = 64;
  shape.value_dim = 128;
  return shape;
}

std::string Text(const AttentionShape& s) {
  return absl::StrCat(s.tokens / s.sequence_length, " sequences of ", s.sequence_length, ", ", s.heads, " heads, 192/",
                      s.value_dim);
}

float Scale(const AttentionShape& s) { return 1.0f / std::sqrt(static_cast<float>(s.nope_dim + s.rope_dim)); }

// Tensors of one shape, with room for the larger of the two workspaces.
class Tensors {
 public:
  Tensors(const AttentionShape& shape, int64_t workspace_bytes, cudaStream_t stream)
      : q_(Width(shape, 192)),
        kv_(Width(shape, 256)),
        rope_(shape.tokens * 64 * 2),
        out_(Width(shape, 128)),
        stats_(shape.tokens * shape.heads * 4),
        d_out_(Width(shape, 128)),
        d_q_(Width(shape, 192)),
        d_kv_(Width(shape, 256)),
        d_rope_(shape.tokens * 64 * 2),
        workspace_(workspace_bytes) {
    unsigned seed = 1;
    for (const Buffer* each : {&q_, &kv_, &rope_, &d_out_}) FillBf16(stream, each->as(), each->bytes() / 2, seed++);
    call.shape = shape;
    call.scale = Scale(shape);
    call.q = q_.as();
    call.q_stride = call.d_q_stride = shape.heads * 192;
    call.kv = kv_.as();
    call.kv_stride = call.d_kv_stride = shape.heads * 256;
    call.k_rope = rope_.as();
    call.k_rope_stride = call.d_k_rope_stride = 64;
    call.out = out_.as();
    call.out_stride = call.d_out_stride = shape.heads * 128;
    call.log_sum_exp = stats_.as<float>();
    call.log_sum_exp_stride = shape.heads;
    call.d_out = d_out_.as();
    call.d_q = d_q_.as();
    call.d_kv = d_kv_.as();
    call.d_k_rope = d_rope_.as();
    call.workspace = workspace_.as();
  }
  AttentionCall call;

 private:
  static size_t Width(const AttentionShape& shape, int64_t dim) { return shape.tokens * shape.heads * dim * 2; }
  Buffer q_, kv_, rope_, out_, stats_, d_out_, d_q_, d_kv_, d_rope_, workspace_;
};

// Half of the rectangle; backward counted as twice the forward.
double Flops(const AttentionShape& s, bool backward) {
  return (backward ? 2.0 : 1.0) * s.tokens * s.sequence_length * s.heads * (192 + 128);
}

void AnswerPlan(CudnnAttention& cudnn, const AttentionShape& shape, bool backward, bool deterministic, bool timed,
                cudaStream_t stream) {
  const std::string question =
      absl::StrCat(backward ? "backward" : "forward",
                   backward ? (deterministic ? ", deterministic" : ", any order") : "", ": ", Text(shape));
  std::string why;
  const CudnnPlanPtr plan =
      cudnn.Plan(shape, cuda::ContiguousLayout(shape, backward), Scale(shape), backward, deterministic, &why);
  if (plan == nullptr) {
    Answer("attention", question, absl::StrCat("no plan: ", why));
    return;
  }
  const int64_t library_bytes = CudnnAttention::WorkspaceBytes(*plan);
  std::string answer = absl::StrFormat("planned, workspace %.1f MiB", library_bytes / 0x1p20);
  if (timed) {
    const CudnnWorkspace parts = cuda::CudnnParts(shape, backward, library_bytes);
    const Tensors tensors(shape, parts.total_bytes(), stream);
    const double ms = MedianMs(
        stream,
        [&] {
          if (backward) {
            cudnn.Backward(*plan, tensors.call, parts, stream);
          } else {
            cudnn.Forward(*plan, tensors.call, parts, stream);
          }
        },
        5);
    CheckCuda(cudaGetLastError(), "attention");
    absl::StrAppendFormat(&answer, ", %.0f TFLOP/s (%.3f ms, with our copies of keys)",
                          Flops(shape, backward) / ms / 1e9, ms);
  }
  Answer("attention", question, answer);
}

}  // namespace

void ProbeAttention() {
  CudnnAttention cudnn;
  cudaStream_t stream = nullptr;
  CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  const AttentionShape shapes[] = {V3(1, 4096, 128), V3(4, 4096, 16), V3(1, 1024, 128), V3(1, 4100, 16),
                                   V3(1, 32768, 128)};
  for (const AttentionShape& shape : shapes) {
    const bool timed = shape.sequence_length <= 4100;  // longer ones are planned only
    AnswerPlan(cudnn, shape, /*backward=*/false, false, timed, stream);
    for (const bool deterministic : {false, true}) AnswerPlan(cudnn, shape, true, deterministic, timed, stream);
  }
  CheckCuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  cudaStreamDestroy(stream);
}

}  // namespace shoestring::probe
