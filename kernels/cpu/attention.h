// Causal multi-head latent attention on the CPU: softmax in FP32, one task a (sequence, head), bits independent of
// threads.
//
// In bf16 the softmax weights and the gradients of the scores are rounded to bf16 before the products that use them, as
// tensor cores need; all sums are FP32. Masked keys cost nothing where whole panels of them can be skipped.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/operations.h"

namespace shoestring {

// Raw pointers of AttentionArgs; leading dimensions in elements; dtype kF32 or kBF16 for all but lse and first_visible.
struct CpuAttentionCall {
  AttentionShape shape;  // sequence_length divides tokens; nope + rope <= 384, value <= 384
  DType dtype = DType::kF32;
  float scale = 0;          // > 0
  const void* q = nullptr;  // [T, H * (nope + rope)]
  int64_t q_ld = 0;
  const void* kv = nullptr;  // [T, H * (nope + value)]
  int64_t kv_ld = 0;
  const void* k_rope = nullptr;  // [T, rope]
  int64_t k_rope_ld = 0;
  const int32_t* first_visible = nullptr;  // [T] position in the sequence, <= the token's own; or nullptr: 0
  void* out = nullptr;                     // [T, H * value]; forward assigns it
  int64_t out_ld = 0;
  float* lse = nullptr;  // [T, H], lse_ld apart; forward assigns it
  int64_t lse_ld = 0;
};

// Gradients, all assigned. d_k_rope is the FP32 sum over heads in head order, rounded once.
struct CpuAttentionGradients {
  const void* d_out = nullptr;  // [T, H * value]
  int64_t d_out_ld = 0;
  void* d_q = nullptr;
  int64_t d_q_ld = 0;
  void* d_kv = nullptr;
  int64_t d_kv_ld = 0;
  void* d_k_rope = nullptr;
  int64_t d_k_rope_ld = 0;
};

// Workspace (64-byte aligned) that a call on `threads` threads needs; the same for both dtypes.
int64_t CpuAttentionWorkspaceBytes(const AttentionShape& shape, Isa isa, int threads, bool backward);

void CpuAttentionForward(ThreadPool& pool, Isa isa, const CpuAttentionCall& call, void* workspace);
// Reads call.out and call.lse of forward.
void CpuAttentionBackward(ThreadPool& pool, Isa isa, const CpuAttentionCall& call, const CpuAttentionGradients& grads,
                          void* workspace);

}  // namespace shoestring
