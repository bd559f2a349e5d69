// One attention head of one sequence: what the level kernels read, write and use as scratch.
#pragma once

#include <cstdint>

#include "kernels/cpu/gemm_micro.h"

namespace shoestring {

// Keys that one pass of softmax sees at once; longer sequences rescale (online softmax). Fixed: it decides bits.
inline constexpr int64_t kAttentionKeys = kGemmBlockDwords;
// Query rows that backward treats together. Even, so that bf16 pairs never straddle two blocks.
inline constexpr int64_t kAttentionQueries = 56;

// Pointers start at the sequence's first token and at the head's first column; `ld`s are in elements. Element type: f32
// or bf16, as the kernel.
struct AttentionHead {
  int64_t length = 0;  // S
  int64_t nope = 0, rope = 0, value = 0;
  float scale = 0;
  const void* q = nullptr;  // [S, nope + rope]
  int64_t q_ld = 0;
  const void* kv = nullptr;  // [S, nope + value]
  int64_t kv_ld = 0;
  const void* k_rope = nullptr;  // [S, rope]
  int64_t k_rope_ld = 0;
  const int32_t* first_visible = nullptr;  // [S] or nullptr
  void* out = nullptr;                     // [S, value]; written by forward, read by backward
  int64_t out_ld = 0;
  float* lse = nullptr;  // [S], lse_ld apart; written by forward, read by backward
  int64_t lse_ld = 0;
  // Backward only.
  const void* d_out = nullptr;  // [S, value]
  int64_t d_out_ld = 0;
  void* d_q = nullptr;  // [S, nope + rope]
  int64_t d_q_ld = 0;
  void* d_kv = nullptr;  // [S, nope + value]
  int64_t d_kv_ld = 0;
  float* d_k_rope = nullptr;  // [S, rope] contiguous: this head's share
};

// Hands out a worker's scratch piece by piece; without memory it only counts.
class AttentionScratch {
 public:
  explicit AttentionScratch(float* memory) : memory_(memory) {}
  float* Take(int64_t floats) {
    const int64_t start = used_;
    used_ += (floats + 15) / 16 * 16;
    return memory_ == nullptr ? nullptr : memory_ + start;
  }
  int64_t used() const { return used_; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

// Packed operands and tiles of one head; the layouts are those of gemm_micro.h, panels of `columns` columns.
struct AttentionBuffers {
  float* key_panels;    // B of the scores: keys as columns, along nope then rope
  float* value_panels;  // B of the output: value columns, along the keys of a block; blocks one after the other
  float* query_tile;    // A rows
  float* scores;        // [rows, kGemmRowStride]
  float* weights;       // A rows: exp(scores - maximum)
  float* output;        // [rows, output_ld]
  int64_t output_ld;
  // Backward only.
  float* value_columns;   // B of d_weights: keys as columns, along value
  float* nope_panels;     // B of d_q: nope columns, along the keys of a block
  float* rope_panels;     // the same for rope
  float* d_out_tile;      // A rows
  float* d_weights;       // [rows, kGemmRowStride]
  float* d_scores;        // A rows
  float* weight_panels;   // B of d_value: keys as columns, along the queries of a block
  float* d_score_panels;  // B of d_key
  float* nope_tiles;      // A columns of d_key: nope as rows, along the queries of a block
  float* rope_tiles;      // the same for rope
  float* d_out_tiles;     // A columns of d_value
  float* d_q_partial;     // [kAttentionQueries, d_q_ld], when keys span several blocks
  int64_t d_q_ld;
  float* d_key;    // [nope + rope, key_ld] f32, transposed
  float* d_value;  // [value, key_ld] f32, transposed
  int64_t key_ld;
  float* delta;  // [S] row sums of d_out * out
};

// Carves the buffers of one head out of scratch.
AttentionBuffers CarveAttention(const AttentionHead& head, const GemmKernels& gemm, bool backward,
                                AttentionScratch& scratch);

struct AttentionKernels {
  void (*forward)(const GemmKernels& gemm, const AttentionHead& head, const AttentionBuffers& buffers);
  void (*backward)(const GemmKernels& gemm, const AttentionHead& head, const AttentionBuffers& buffers);
};
struct LevelAttention {
  AttentionKernels f32;
  AttentionKernels bf16;
};
const LevelAttention& PortableAttention();
const LevelAttention& Avx2Attention();
const LevelAttention& Avx512Attention();
const LevelAttention& Avx512Bf16Attention();

}  // namespace shoestring
