// Who computes attention, and the sizes of shared memory and workspace that follow from a shape.
#include "kernels/cuda/attention_config.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/gemm_config.h"

namespace shoestring::cuda {
namespace {

int64_t RoundUp(int64_t x) { return (x + 255) / 256 * 256; }

int64_t KeyDim(const AttentionShape& s) { return s.nope_dim + s.rope_dim; }

// Rows of a block in shared memory are one word longer than they must be, so that columns lie in different banks.
int64_t BlockFloats(int64_t cols) { return kAttentionBlock * (cols + 1); }

bool RowsAligned(int64_t stride) { return stride % 8 == 0; }

}  // namespace

AttentionLayout ContiguousLayout(const AttentionShape& s, bool backward) {
  AttentionLayout layout;
  layout.q_stride = s.heads * KeyDim(s);
  layout.kv_stride = s.heads * (s.nope_dim + s.value_dim);
  layout.out_stride = s.heads * s.value_dim;
  if (!backward) return layout;
  layout.d_out_stride = layout.out_stride;
  layout.d_q_stride = layout.q_stride;
  layout.d_kv_stride = layout.kv_stride;
  return layout;
}

std::string CudnnRefusal(const AttentionShape& s, const AttentionLayout& layout) {
  const std::string dims = std::to_string(KeyDim(s)) + "/" + std::to_string(s.value_dim);
  if (layout.dtype != DType::kBF16) return std::string("it has no plan for ") + Name(layout.dtype);
  if (layout.documents) return "masks of documents are ours";
  if (KeyDim(s) % 8 != 0 || s.value_dim % 8 != 0 || s.nope_dim % 8 != 0) {
    return "head dimensions " + dims + " are not multiples of 8";
  }
  if (KeyDim(s) > 256 || s.value_dim > 256) return "head dimensions " + dims + " exceed 256";
  const bool v3 = KeyDim(s) == 192 && s.value_dim == 128;
  if (KeyDim(s) != s.value_dim && !v3) return "head dimensions " + dims + " differ and are not 192/128";
  for (int64_t stride : {layout.q_stride, layout.kv_stride, layout.out_stride, layout.d_out_stride, layout.d_q_stride,
                         layout.d_kv_stride}) {
    if (!RowsAligned(stride)) return "rows are not a multiple of 16 bytes apart";
  }
  if (layout.least_alignment_bytes < 16) return "a tensor does not begin at a multiple of 16 bytes";
  return "";
}

// q, k, v and the output's block, then scores.
int64_t AttentionForwardShared(const AttentionShape& s) {
  return 4 * (2 * BlockFloats(KeyDim(s)) + 2 * BlockFloats(s.value_dim) + BlockFloats(kAttentionBlock));
}
// k, v, their gradients, q, d_out, then weights and gradients of scores.
int64_t AttentionKeyGradientShared(const AttentionShape& s) {
  return 4 * (3 * BlockFloats(KeyDim(s)) + 3 * BlockFloats(s.value_dim) + 2 * BlockFloats(kAttentionBlock));
}
// q, its gradient, d_out, k, v, then gradients of scores.
int64_t AttentionQueryGradientShared(const AttentionShape& s) {
  return 4 * (3 * BlockFloats(KeyDim(s)) + 2 * BlockFloats(s.value_dim) + BlockFloats(kAttentionBlock));
}

std::string OwnAttentionRefusal(const AttentionShape& s) {
  const int64_t most =
      std::max({AttentionForwardShared(s), AttentionKeyGradientShared(s), AttentionQueryGradientShared(s)});
  if (most <= kMaxSharedBytes) return "";
  return "head dimensions " + std::to_string(KeyDim(s)) + "/" + std::to_string(s.value_dim) + " need " +
         std::to_string(most) + " bytes of shared memory, and a block has " + std::to_string(kMaxSharedBytes);
}

int64_t OwnAttentionWorkspace::shares_offset() const { return RoundUp(delta_bytes); }
int64_t OwnAttentionWorkspace::total_bytes() const { return shares_offset() + RoundUp(shares_bytes); }

OwnAttentionWorkspace OwnWorkspace(const AttentionShape& s, bool backward) {
  if (!backward) return {};
  return {s.tokens * s.heads * 4, s.tokens * s.heads * s.rope_dim * 4};
}

int64_t CudnnWorkspace::key_gradients_offset() const { return RoundUp(keys_bytes); }
int64_t CudnnWorkspace::stats_offset() const { return key_gradients_offset() + RoundUp(key_gradients_bytes); }
int64_t CudnnWorkspace::library_offset() const { return stats_offset() + RoundUp(stats_bytes); }
int64_t CudnnWorkspace::total_bytes() const { return library_offset() + RoundUp(library_bytes); }

CudnnWorkspace CudnnParts(const AttentionShape& s, bool backward, int64_t library_bytes) {
  CudnnWorkspace w;
  w.keys_bytes = s.tokens * s.heads * KeyDim(s) * 2;
  if (backward) w.key_gradients_bytes = w.keys_bytes;
  w.stats_bytes = s.tokens * s.heads * 4;
  w.library_bytes = library_bytes;
  return w;
}

}  // namespace shoestring::cuda
