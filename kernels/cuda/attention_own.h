// Causal multi-head latent attention by kernels of our own: any head dimensions that fit, masks of documents, bf16 and
// f32.
//
// Softmax and all sums are f32, in an order that positions alone fix: a token's output depends on its past only, and
// two runs give the same bits. They read and write shared memory a word at a time, so they are slow beside cuDNN.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/operations.h"

namespace shoestring::cuda {

// Tensors of AttentionArgs and AttentionBackwardArgs as addresses and strides in elements.
struct AttentionCall {
  AttentionShape shape;
  bool bf16 = true;  // else f32
  float scale = 0;
  const void* q = nullptr;
  int64_t q_stride = 0;
  const void* kv = nullptr;
  int64_t kv_stride = 0;
  const void* k_rope = nullptr;
  int64_t k_rope_stride = 0;
  const int32_t* first_visible = nullptr;
  void* out = nullptr;  // forward assigns it, backward reads it
  int64_t out_stride = 0;
  float* log_sum_exp = nullptr;  // likewise
  int64_t log_sum_exp_stride = 0;
  // Backward only.
  const void* d_out = nullptr;
  int64_t d_out_stride = 0;
  void* d_q = nullptr;
  int64_t d_q_stride = 0;
  void* d_kv = nullptr;
  int64_t d_kv_stride = 0;
  void* d_k_rope = nullptr;
  int64_t d_k_rope_stride = 0;
  void* workspace = nullptr;  // OwnWorkspace
};

void LaunchOwnAttention(const AttentionCall& call, cudaStream_t stream);
void LaunchOwnAttentionBackward(const AttentionCall& call, cudaStream_t stream);

// --- between our layouts and cuDNN's ---------------------------------------------------------------------------------

// keys [T, H, nope + rope] bf16: a head's key part of kv, then the shared k_rope.
void LaunchPackKeys(const AttentionCall& call, void* keys, cudaStream_t stream);
// d_kv's key parts, and d_k_rope: the sum over heads, in head order, of what cuDNN has rounded to bf16, rounded once.
void LaunchUnpackKeyGradients(const AttentionCall& call, const void* key_gradients, cudaStream_t stream);
// [T, H] with a stride and [sequence, H, S].
void LaunchPackStats(const AttentionCall& call, float* stats, cudaStream_t stream);
void LaunchUnpackStats(const AttentionCall& call, const float* stats, cudaStream_t stream);

}  // namespace shoestring::cuda
