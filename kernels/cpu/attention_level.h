// What attention's forward and backward share, over simd.h: packing of keys, products of a tile, ways to store weights.
#pragma once

#include "kernels/cpu/attention_head.h"
#include "kernels/cpu/gemm_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

// A format says how tensors are read and how softmax weights and their gradients are kept for the products that follow:
// Row writes sixteen of one row (A rows tile), PairOfRows sixteen of rows q and q + 1, q even, of a panel (B).
struct FloatFormat {
  using Source = FloatSource;
  static void Row(float* row, int64_t column, F32x16 x) { Store(row + column, x); }
  static void PairOfRows(float* panel, int64_t q, int64_t width, F32x16 x, F32x16 y) {
    Store(panel + q * width, x);
    Store(panel + (q + 1) * width, y);
  }
};

// bf16 tensors on a level that multiplies floats: the same roundings, kept as floats.
struct Bf16AsFloatFormat {
  using Source = Bf16AsFloatSource;
  static void Row(float* row, int64_t column, F32x16 x) { Store(row + column, RoundToBf16(x)); }
  static void PairOfRows(float* panel, int64_t q, int64_t width, F32x16 x, F32x16 y) {
    Store(panel + q * width, RoundToBf16(x));
    Store(panel + (q + 1) * width, RoundToBf16(y));
  }
};

#if defined(__AVX512BF16__)
struct Bf16PairFormat {
  using Source = Bf16PairSource;
  static void Row(float* row, int64_t column, F32x16 x) { StoreBf16(reinterpret_cast<uint16_t*>(row) + column, x); }
  static void PairOfRows(float* panel, int64_t q, int64_t width, F32x16 x, F32x16 y) {
    Store(panel + q / 2 * width, InterleaveAsBf16(x, y));
  }
};
#endif

inline int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t RoundUpTo(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }
inline int VectorsOf(int64_t columns) { return columns > kLanes ? 2 : 1; }

inline F32x16 LoadAs(const float* p, int n) { return LoadN(p, n); }
inline F32x16 LoadAs(const uint16_t* p, int n) { return LoadBf16N(p, n); }
inline void StoreAs(float* p, F32x16 x, int n) { StoreN(p, x, n); }
inline void StoreAs(uint16_t* p, F32x16 x, int n) { StoreBf16N(p, x, n); }
inline void SetOut(TileOut& out, float* p) { out.f32 = p; }
inline void SetOut(TileOut& out, uint16_t* p) { out.bf16 = p; }

// Pointer to element (row, column), typed.
template <typename Element>
const Element* Cell(const void* p, int64_t ld, int64_t row, int64_t column) {
  return static_cast<const Element*>(p) + row * ld + column;
}
template <typename Element>
Element* Cell(void* p, int64_t ld, int64_t row, int64_t column) {
  return static_cast<Element*>(p) + row * ld + column;
}

// x with `other` in the lanes whose column is not in [low, high); lane 0 is `column`.
inline F32x16 OnlyBetween(F32x16 x, F32x16 other, int64_t column, int64_t low, int64_t high) {
  if (column >= low && column + kLanes <= high) return x;
  const int below = static_cast<int>(Larger(0, Smaller(kLanes, low - column)));
  const int within = static_cast<int>(Larger(0, Smaller(kLanes, high - column)));
  return Select(FirstN(below), other, Select(FirstN(within), x, other));
}

// The keys, transposed: panels of keys, along nope then rope, each padded to whole dwords as PackQueryTile does.
template <typename Source>
void PackKeyPanels(const GemmKernels& gemm, const AttentionHead& h, float* to) {
  using Element = typename Source::Element;
  const int64_t nope = RoundUpTo(h.nope, Source::kStep) / Source::kStep;
  const int64_t dwords = nope + RoundUpTo(h.rope, Source::kStep) / Source::kStep;
  for (int64_t key = 0; key < h.length; key += gemm.columns()) {
    const int columns = static_cast<int>(Smaller(gemm.columns(), h.length - key)), vectors = VectorsOf(columns);
    float* panel = to + key * dwords;
    gemm.pack->panel_transposed(Cell<Element>(h.kv, h.kv_ld, key, 0), h.kv_ld, h.nope, columns, vectors, panel);
    gemm.pack->panel_transposed(Cell<Element>(h.k_rope, h.k_rope_ld, key, 0), h.k_rope_ld, h.rope, columns, vectors,
                                panel + nope * vectors * kLanes);
  }
}

// A matrix [S, columns] as panels of its columns, along the keys of each block of kAttentionKeys.
template <typename Source>
void PackAlongKeys(const GemmKernels& gemm, int64_t length, const void* source, int64_t ld, int64_t columns,
                   float* to) {
  using Element = typename Source::Element;
  for (int64_t base = 0; base < length; base += kAttentionKeys) {
    const int64_t keys = Smaller(kAttentionKeys, length - base);
    const int64_t dwords = RoundUpTo(keys, Source::kStep) / Source::kStep;
    float* block = to + base / Source::kStep * RoundUpTo(columns, kLanes);
    for (int64_t j = 0; j < columns; j += gemm.columns()) {
      const int width = static_cast<int>(Smaller(gemm.columns(), columns - j));
      gemm.pack->panel(Cell<Element>(source, ld, base, j), ld, keys, width, VectorsOf(width), block + j * dwords);
    }
  }
}

template <typename Source>
void PackQueryTile(const GemmKernels& gemm, const AttentionHead& h, int64_t row, int rows, float* tile) {
  using Element = typename Source::Element;
  gemm.pack->rows(Cell<Element>(h.q, h.q_ld, row, 0), h.q_ld, rows, h.nope, tile);
  gemm.pack->rows(Cell<Element>(h.q, h.q_ld, row, h.nope), h.q_ld, rows, h.rope,
                  tile + RoundUpTo(h.nope, Source::kStep) / Source::kStep);
}

// to[r, key - base] = tile row r . key panel column, for keys [first, end); `first` on a panel.
inline void MultiplyKeys(const GemmKernels& gemm, int rows, int64_t dwords, const float* tile, const float* panels,
                         int64_t length, int64_t base, int64_t first, int64_t end, float* to) {
  for (int64_t key = first; key < end; key += gemm.columns()) {
    TileOut out = {};
    out.f32 = to + key - base;
    out.stride = kGemmRowStride;
    out.columns = static_cast<int>(Smaller(gemm.columns(), length - key));
    gemm.micro->at[kTileRows][VectorsOf(out.columns)][rows](dwords, tile, panels + key * dwords, out);
  }
}

// out = tile [rows, keys first..end of the block at base] * matrix packed by PackAlongKeys [keys, columns].
template <typename Source>
void MultiplyAlongKeys(const GemmKernels& gemm, int rows, const float* tile, const float* packed, int64_t length,
                       int64_t base, int64_t first, int64_t end, int64_t columns, const TileOut& tile_out) {
  const int64_t block_dwords = RoundUpTo(Smaller(kAttentionKeys, length - base), Source::kStep) / Source::kStep;
  const int64_t skip = (first - base) / Source::kStep;
  const int64_t dwords = RoundUpTo(end - first, Source::kStep) / Source::kStep;
  const float* block = packed + base / Source::kStep * RoundUpTo(columns, kLanes);
  for (int64_t j = 0; j < columns; j += gemm.columns()) {
    TileOut out = tile_out.At(0, j);
    out.columns = static_cast<int>(Smaller(gemm.columns(), columns - j));
    const int vectors = VectorsOf(out.columns);
    gemm.micro->at[kTileRows][vectors][rows](dwords, tile + skip, block + j * block_dwords + skip * vectors * kLanes,
                                             out);
  }
}

// The first key that any of the rows may see, on a panel. Nothing before it is computed.
inline int64_t FirstKey(const GemmKernels& gemm, const AttentionHead& h, int64_t row, int64_t rows) {
  if (h.first_visible == nullptr) return 0;
  int64_t first = h.first_visible[row];
  for (int64_t r = row + 1; r < row + rows; ++r) first = Smaller(first, h.first_visible[r]);
  return first / gemm.columns() * gemm.columns();
}
inline int64_t FirstKeyOfRow(const AttentionHead& h, int64_t row) {
  return h.first_visible == nullptr ? 0 : h.first_visible[row];
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
