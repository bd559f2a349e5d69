// Attention forward of one head, over simd.h: tiles of query rows against blocks of keys, softmax rescaled between
// blocks.
//
// Dao et al. 2022 (FlashAttention), algorithm 1, with the roles: a tile of rows stays, blocks of keys pass. A row's
// bits depend on its sequence alone: masked keys contribute exact zeros, and blocks begin at fixed keys.
#pragma once

#include "kernels/cpu/attention_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

struct SoftmaxRow {
  float maximum = -__builtin_inff();  // of scaled scores so far
  float sum = 0;                      // of exp(scaled score - maximum)
};

// Turns scores of columns [begin, end) into weights; only [low, high) is visible. Returns what earlier weights must be
// multiplied by. `scores` is clobbered.
template <typename Format>
float WeighRow(float* scores, int64_t begin, int64_t end, int64_t low, int64_t high, float scale, SoftmaxRow& row,
               float* weights) {
  const F32x16 nothing = Broadcast(-__builtin_inff());
  F32x16 largest = nothing;
  for (int64_t c = begin; c < end; c += kLanes) {
    const F32x16 s = OnlyBetween(Load(scores + c), nothing, c, low, high);
    Store(scores + c, s);
    largest = Max(largest, s);
  }
  const float maximum = ReduceMax(largest) * scale;  // scale > 0
  if (low >= high) {
    for (int64_t c = begin; c < end; c += kLanes) Format::Row(weights, c, Zero());
    return 1.0f;
  }
  const float before = row.maximum;
  row.maximum = before > maximum ? before : maximum;
  F32x16 sum = Zero();
  const F32x16 factor = Broadcast(scale), shift = Broadcast(-row.maximum);
  for (int64_t c = begin; c < end; c += kLanes) {
    const F32x16 p = Exp(Fma(Load(scores + c), factor, shift));
    sum = sum + p;
    Format::Row(weights, c, p);
  }
  float rescale[kLanes];
  Store(rescale, Exp(Broadcast(before - row.maximum)));
  row.sum = row.sum * rescale[0] + ReduceAdd(sum);
  return rescale[0];
}

inline void ScaleRow(float* row, int64_t n, float factor) {
  for (int64_t j = 0; j < n; j += kLanes) Store(row + j, Load(row + j) * Broadcast(factor));
}

template <typename Element>
void FinishRow(const AttentionHead& h, int64_t row, const SoftmaxRow& softmax, const float* output) {
  Element* out = Cell<Element>(h.out, h.out_ld, row, 0);
  const F32x16 sum = Broadcast(softmax.sum);
  for (int64_t j = 0; j < h.value; j += kLanes) {
    StoreAs(out + j, Load(output + j) / sum, static_cast<int>(Smaller(kLanes, h.value - j)));
  }
  h.lse[row * h.lse_ld] = softmax.maximum + __builtin_logf(softmax.sum);
}

template <typename Format>
void ForwardTile(const GemmKernels& gemm, const AttentionHead& h, const AttentionBuffers& b, int64_t row, int rows) {
  using Source = typename Format::Source;
  const int64_t step = Source::kStep;
  const int64_t dwords = (RoundUpTo(h.nope, step) + RoundUpTo(h.rope, step)) / step;
  PackQueryTile<Source>(gemm, h, row, rows, b.query_tile);
  SoftmaxRow softmax[kGemmMaxRows];
  const int64_t first_key = FirstKey(gemm, h, row, rows), end_key = row + rows;
  bool first_block = true;
  for (int64_t base = first_key / kAttentionKeys * kAttentionKeys; base < end_key; base += kAttentionKeys) {
    const int64_t first = Larger(base, first_key), end = Smaller(base + kAttentionKeys, end_key);
    MultiplyKeys(gemm, rows, dwords, b.query_tile, b.key_panels, h.length, base, first, end, b.scores);
    for (int r = 0; r < rows; ++r) {
      const int64_t low = Larger(first, FirstKeyOfRow(h, row + r)), high = Smaller(end, row + r + 1);
      const float factor = WeighRow<Format>(b.scores + r * kGemmRowStride, first - base, end - base, low - base,
                                            high - base, h.scale, softmax[r], b.weights + r * kGemmRowStride);
      if (!first_block) ScaleRow(b.output + r * b.output_ld, h.value, factor);
    }
    TileOut out = {};
    out.f32 = b.output;
    out.stride = b.output_ld;
    out.add_f32 = !first_block;
    MultiplyAlongKeys<Source>(gemm, rows, b.weights, b.value_panels, h.length, base, first, end, h.value, out);
    first_block = false;
  }
  for (int r = 0; r < rows; ++r) {
    FinishRow<typename Source::Element>(h, row + r, softmax[r], b.output + r * b.output_ld);
  }
}

template <typename Format>
void AttentionForward(const GemmKernels& gemm, const AttentionHead& h, const AttentionBuffers& b) {
  using Source = typename Format::Source;
  PackKeyPanels<Source>(gemm, h, b.key_panels);
  const auto* values = Cell<typename Source::Element>(h.kv, h.kv_ld, 0, h.nope);
  PackAlongKeys<Source>(gemm, h.length, values, h.kv_ld, h.value, b.value_panels);
  for (int64_t row = 0; row < h.length; row += gemm.rows) {
    ForwardTile<Format>(gemm, h, b, row, static_cast<int>(Smaller(gemm.rows, h.length - row)));
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
