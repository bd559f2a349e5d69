// How the attention core is launched on the GPU: who computes it, with which tiles, how much shared memory and
// workspace. Pure functions; nothing here needs a GPU.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring::cuda {

// Tensors of one call as far as they matter to the choice. Strides in elements, alignments in bytes.
struct AttentionLayout {
  DType dtype = DType::kBF16;
  bool documents = false;  // first_visible is given
  int64_t q_stride = 0;
  int64_t kv_stride = 0;
  int64_t out_stride = 0;
  int64_t d_out_stride = 0;  // 0 in forward, and so the next two
  int64_t d_q_stride = 0;
  int64_t d_kv_stride = 0;
  int64_t least_alignment_bytes = 256;  // of q, kv, out and, in backward, their gradients
};
// Of contiguous tensors.
AttentionLayout ContiguousLayout(const AttentionShape& shape, bool backward);

// Empty, or why cuDNN is not asked. What it is asked it may still refuse: then that is the reason.
//
// Head dimensions: multiples of 8 up to 256, and unequal ones only as 192 and 128, the pair that Transformer Engine
// leaves enabled on this GPU since cuDNN 9.11 (others gave wrong results).
std::string CudnnRefusal(const AttentionShape& shape, const AttentionLayout& layout);

// Our own kernels: blocks of 32 queries and 32 keys in shared memory, as f32.
inline constexpr int kAttentionBlock = 32;
inline constexpr int kAttentionThreads = 256;
// Shared memory of the three kernels: forward, gradient of keys and values, gradient of queries.
int64_t AttentionForwardShared(const AttentionShape& shape);
int64_t AttentionKeyGradientShared(const AttentionShape& shape);
int64_t AttentionQueryGradientShared(const AttentionShape& shape);
// Empty, or why our own kernels cannot do this: blocks that do not fit into shared memory.
std::string OwnAttentionRefusal(const AttentionShape& shape);

// Parts of the workspace, each at a multiple of 256 bytes.
struct OwnAttentionWorkspace {
  int64_t delta_bytes = 0;   // f32 [T, H]: sum of out * d_out
  int64_t shares_bytes = 0;  // f32 [T, H, rope]: what each head adds to d_k_rope
  int64_t shares_offset() const;
  int64_t total_bytes() const;
};
OwnAttentionWorkspace OwnWorkspace(const AttentionShape& shape, bool backward);

// cuDNN reads keys a head side by side, [T, H, nope + rope], and log-sum-exp as [sequence, H, S].
struct CudnnWorkspace {
  int64_t keys_bytes = 0;           // bf16
  int64_t key_gradients_bytes = 0;  // bf16; backward only
  int64_t stats_bytes = 0;          // f32
  int64_t library_bytes = 0;        // what the plan asks for
  int64_t key_gradients_offset() const;
  int64_t stats_offset() const;
  int64_t library_offset() const;
  int64_t total_bytes() const;
};
CudnnWorkspace CudnnParts(const AttentionShape& shape, bool backward, int64_t library_bytes);

}  // namespace shoestring::cuda
