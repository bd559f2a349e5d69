// Attention backward of one head, over simd.h: softmax weights are computed again from the log-sum-exp of forward.
//
// Dao et al. 2022 (FlashAttention), algorithm 4: with P = exp(scale * Q K^T - lse) and delta = rowsum(dO * O),
//   dV = P^T dO,  dP = dO V^T,  dS = scale * P * (dP - delta),  dQ = dS K,  dK = dS^T Q.
// dK and dV are kept transposed in FP32 while blocks of query rows pass in order, and rounded once.
#pragma once

#include "kernels/cpu/attention_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

template <typename Element>
void ComputeDelta(const AttentionHead& h, float* delta) {
  for (int64_t row = 0; row < h.length; ++row) {
    const Element* out = Cell<Element>(h.out, h.out_ld, row, 0);
    const Element* d_out = Cell<Element>(h.d_out, h.d_out_ld, row, 0);
    F32x16 sum = Zero();
    for (int64_t j = 0; j < h.value; j += kLanes) {
      const int n = static_cast<int>(Smaller(kLanes, h.value - j));
      sum = Fma(LoadAs(out + j, n), LoadAs(d_out + j, n), sum);
    }
    delta[row] = ReduceAdd(sum);
  }
}

// What one row needs to get its weights back. An absent row (the odd last one's partner) sees nothing.
struct GradientRow {
  const float* scores;
  const float* d_weights;
  float* d_scores;  // A rows
  float lse, delta;
  int64_t low, high;  // visible columns
};

// Weights and d_scores of two neighbouring rows, in the formats of the three products that follow. q: the first row's
// place in the block of queries; columns [begin, end) are whole panels.
template <typename Format>
void GradientPair(const GradientRow rows[2], int64_t begin, int64_t end, float scale, int64_t q, int64_t width,
                  const AttentionBuffers& b) {
  const int64_t panel_floats = kAttentionQueries / Format::Source::kStep * width;
  for (int64_t c = begin; c < end; c += kLanes) {
    F32x16 p[2], ds[2];
    for (int i = 0; i < 2; ++i) {
      const GradientRow& row = rows[i];
      const F32x16 weight = Exp(Fma(Load(row.scores + c), Broadcast(scale), Broadcast(-row.lse)));
      const F32x16 gradient = weight * (Load(row.d_weights + c) - Broadcast(row.delta)) * Broadcast(scale);
      p[i] = OnlyBetween(weight, Zero(), c, row.low, row.high);
      ds[i] = OnlyBetween(gradient, Zero(), c, row.low, row.high);
      Format::Row(row.d_scores, c, ds[i]);
    }
    const int64_t panel = c / width * panel_floats + c % width;
    Format::PairOfRows(b.weight_panels + panel, q, width, p[0], p[1]);
    Format::PairOfRows(b.d_score_panels + panel, q, width, ds[0], ds[1]);
  }
}

// The rows [row, row + rows) of a tile against the keys [first, end) of the block at base.
struct TilePlace {
  int64_t block_row;  // first row of the block of queries
  int64_t row;
  int rows;
  int64_t base, first, end;
};

template <typename Format>
void GradientTile(const GemmKernels& gemm, const AttentionHead& h, const AttentionBuffers& b, const TilePlace& at) {
  using Source = typename Format::Source;
  const int64_t step = Source::kStep, width = gemm.columns();
  const int64_t key_dwords = (RoundUpTo(h.nope, step) + RoundUpTo(h.rope, step)) / step;
  PackQueryTile<Source>(gemm, h, at.row, at.rows, b.query_tile);
  gemm.pack->rows(Cell<typename Source::Element>(h.d_out, h.d_out_ld, at.row, 0), h.d_out_ld, at.rows, h.value,
                  b.d_out_tile);
  MultiplyKeys(gemm, at.rows, key_dwords, b.query_tile, b.key_panels, h.length, at.base, at.first, at.end, b.scores);
  MultiplyKeys(gemm, at.rows, RoundUpTo(h.value, step) / step, b.d_out_tile, b.value_columns, h.length, at.base,
               at.first, at.end, b.d_weights);
  for (int r = 0; r < at.rows; r += 2) {
    GradientRow rows[2];
    for (int i = 0; i < 2; ++i) {
      const int64_t offset = (r + i) * kGemmRowStride, row = at.row + r + i;
      const bool exists = r + i < at.rows;
      rows[i] = {b.scores + offset, b.d_weights + offset, b.d_scores + offset, 0, 0, 0, 0};
      if (!exists) continue;
      rows[i].lse = h.lse[row * h.lse_ld];
      rows[i].delta = b.delta[row];
      rows[i].low = Larger(at.first, FirstKeyOfRow(h, row)) - at.base;
      rows[i].high = Smaller(at.end, row + 1) - at.base;
    }
    GradientPair<Format>(rows, at.first - at.base, RoundUpTo(at.end - at.base, width), h.scale,
                         at.row - at.block_row + r, width, b);
  }
}

// d_q of a tile, from its d_scores; block after block of keys is added, the last one writes.
template <typename Format>
void GradientOfQueries(const GemmKernels& gemm, const AttentionHead& h, const AttentionBuffers& b, const TilePlace& at,
                       bool first_block, bool last_block) {
  using Source = typename Format::Source;
  for (int rope = 0; rope < 2; ++rope) {
    const int64_t column = rope ? h.nope : 0;
    TileOut out = {};
    out.partial = b.d_q_partial + (at.row - at.block_row) * b.d_q_ld + column;
    out.partial_stride = b.d_q_ld;
    out.earlier = first_block ? nullptr : out.partial;
    out.earlier_stride = b.d_q_ld;
    out.stride = h.d_q_ld;
    if (last_block) SetOut(out, Cell<typename Source::Element>(h.d_q, h.d_q_ld, at.row, column));
    MultiplyAlongKeys<Source>(gemm, at.rows, b.d_scores, rope ? b.rope_panels : b.nope_panels, h.length, at.base,
                              at.first, at.end, rope ? h.rope : h.nope, out);
  }
}

// sum[row, key] += tiles (columns of a block of queries as rows) * panel, over the queries [skip, queries) of the
// block.
inline void AddAlongQueries(const GemmKernels& gemm, const float* tiles, int64_t rows, int64_t skip, int64_t dwords,
                            const float* panel, int columns, float* sum, int64_t ld) {
  const int64_t count = (rows + gemm.rows - 1) / gemm.rows;
  for (int64_t t = 0; t < count; ++t) {
    const int64_t start = TileStart(rows, count, t);
    TileOut out = {};
    out.f32 = sum + start * ld;
    out.stride = ld;
    out.add_f32 = true;
    out.columns = columns;
    gemm.micro->at[kTileColumns][gemm.vectors][TileStart(rows, count, t + 1) - start](
        dwords, tiles + t * kAttentionQueries * kLanes + skip * kLanes, panel + skip * gemm.columns(), out);
  }
}

// d_key and d_value of the keys [first, end) from the block of queries at block_row.
template <typename Format>
void GradientOfKeys(const GemmKernels& gemm, const AttentionHead& h, const AttentionBuffers& b, int64_t block_row,
                    int64_t queries, int64_t base, int64_t first, int64_t end) {
  constexpr int64_t kStep = Format::Source::kStep;
  const int64_t width = gemm.columns();
  for (int64_t key = first; key < end; key += width) {
    const int columns = static_cast<int>(Smaller(width, h.length - key));
    // Queries before the panel's first key see none of it.
    const int64_t skip = Larger(0, key - block_row) / kStep;
    const int64_t dwords = RoundUpTo(queries, kStep) / kStep - skip;
    const int64_t panel = (key - base) * (kAttentionQueries / kStep);
    AddAlongQueries(gemm, b.d_out_tiles, h.value, skip, dwords, b.weight_panels + panel, columns, b.d_value + key,
                    b.key_ld);
    AddAlongQueries(gemm, b.nope_tiles, h.nope, skip, dwords, b.d_score_panels + panel, columns, b.d_key + key,
                    b.key_ld);
    AddAlongQueries(gemm, b.rope_tiles, h.rope, skip, dwords, b.d_score_panels + panel, columns,
                    b.d_key + h.nope * b.key_ld + key, b.key_ld);
  }
}

template <typename Source>
void PackColumnsOfBlock(const GemmKernels& gemm, const void* from, int64_t ld, int64_t queries, int64_t rows,
                        float* tiles) {
  const int count = static_cast<int>((rows + gemm.rows - 1) / gemm.rows), n = static_cast<int>(rows);
  gemm.pack->tiles(from, ld, queries, n, n, count, kAttentionQueries * kLanes, tiles);
}

template <typename Format>
void BackwardBlock(const GemmKernels& gemm, const AttentionHead& h, const AttentionBuffers& b, int64_t row) {
  using Source = typename Format::Source;
  using Element = typename Source::Element;
  const int64_t queries = Smaller(kAttentionQueries, h.length - row);
  PackColumnsOfBlock<Source>(gemm, Cell<Element>(h.q, h.q_ld, row, 0), h.q_ld, queries, h.nope, b.nope_tiles);
  PackColumnsOfBlock<Source>(gemm, Cell<Element>(h.q, h.q_ld, row, h.nope), h.q_ld, queries, h.rope, b.rope_tiles);
  PackColumnsOfBlock<Source>(gemm, Cell<Element>(h.d_out, h.d_out_ld, row, 0), h.d_out_ld, queries, h.value,
                             b.d_out_tiles);
  const int64_t first_key = FirstKey(gemm, h, row, queries), end_key = row + queries;
  const int64_t first_base = first_key / kAttentionKeys * kAttentionKeys;
  for (int64_t base = first_base; base < end_key; base += kAttentionKeys) {
    const int64_t first = Larger(base, first_key), end = Smaller(base + kAttentionKeys, end_key);
    for (int64_t t = 0; t < queries; t += gemm.rows) {
      TilePlace at = {row, row + t, static_cast<int>(Smaller(gemm.rows, queries - t)), base, first, end};
      // A tile that ends before this block of keys begins saw its last keys in the block before.
      at.end = Smaller(end, at.row + at.rows);
      if (at.end <= first) continue;
      GradientTile<Format>(gemm, h, b, at);
      const bool last = at.row + at.rows <= base + kAttentionKeys;
      GradientOfQueries<Format>(gemm, h, b, at, base == first_base, last);
    }
    GradientOfKeys<Format>(gemm, h, b, row, queries, base, first, end);
  }
}

// to[key, j] = from[j, key], rounded to the element type.
template <typename Element>
void WriteTransposed(const float* from, int64_t from_ld, int64_t keys, int64_t columns, Element* to, int64_t to_ld) {
  for (int64_t key = 0; key < keys; key += kLanes) {
    for (int64_t j = 0; j < columns; j += kLanes) {
      F32x16 square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = j + i < columns ? Load(from + (j + i) * from_ld + key) : Zero();
      Transpose16(square);
      const int n = static_cast<int>(Smaller(kLanes, columns - j));
      for (int i = 0; i < kLanes && key + i < keys; ++i) StoreAs(to + (key + i) * to_ld + j, square[i], n);
    }
  }
}

template <typename Format>
void AttentionBackward(const GemmKernels& gemm, const AttentionHead& h, const AttentionBuffers& b) {
  using Source = typename Format::Source;
  using Element = typename Source::Element;
  const Element* values = Cell<Element>(h.kv, h.kv_ld, 0, h.nope);
  PackKeyPanels<Source>(gemm, h, b.key_panels);
  PackAlongKeys<Source>(gemm, h.length, h.kv, h.kv_ld, h.nope, b.nope_panels);
  PackAlongKeys<Source>(gemm, h.length, h.k_rope, h.k_rope_ld, h.rope, b.rope_panels);
  const int64_t value_dwords = RoundUpTo(h.value, Source::kStep) / Source::kStep;
  for (int64_t key = 0; key < h.length; key += gemm.columns()) {
    const int columns = static_cast<int>(Smaller(gemm.columns(), h.length - key));
    gemm.pack->panel_transposed(values + key * h.kv_ld, h.kv_ld, h.value, columns, VectorsOf(columns),
                                b.value_columns + key * value_dwords);
  }
  ComputeDelta<Element>(h, b.delta);
  std::memset(b.d_key, 0, (h.nope + h.rope) * b.key_ld * sizeof(float));
  std::memset(b.d_value, 0, h.value * b.key_ld * sizeof(float));
  for (int64_t row = 0; row < h.length; row += kAttentionQueries) BackwardBlock<Format>(gemm, h, b, row);
  WriteTransposed(b.d_key, b.key_ld, h.length, h.nope, Cell<Element>(h.d_kv, h.d_kv_ld, 0, 0), h.d_kv_ld);
  WriteTransposed(b.d_value, b.key_ld, h.length, h.value, Cell<Element>(h.d_kv, h.d_kv_ld, 0, h.nope), h.d_kv_ld);
  WriteTransposed(b.d_key + h.nope * b.key_ld, b.key_ld, h.length, h.rope, h.d_k_rope, h.rope);
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
