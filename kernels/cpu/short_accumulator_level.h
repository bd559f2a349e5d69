// Products of FP8 operands as Hopper's tensor cores sum them: docs/numerics.md, "Short accumulator".
//
// Like every *_level.h: compiled once a level, in that level's namespace. Integers hold the aligned terms, so the order
// of the additions inside a group does not matter and every level gives the same bits.
#pragma once

#include "kernels/cpu/gemm_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

inline constexpr int64_t kAlignedProducts = 32;
// What stands for the exponent of zero: below that of any product and of any sum, and not lost in a product of two.
inline constexpr uint32_t kZeroPower = static_cast<uint32_t>(127 - 60) << 23;
inline constexpr uint32_t kLeastPower = static_cast<uint32_t>(127 - 100) << 23;
inline constexpr int kKeptBits = 13;

// 2^exponent of decoded FP8 numbers, whose exponent is never below that of the format's smallest normal number.
// Infinity for a NaN.
inline F32x16 PowerOf(F32x16 v, F32x16 smallest_normal) {
  const F32x16 power = Max(FloatOf(BitsOf(v) & AllOf(0x7f800000u)), smallest_normal);
  return Select(Less(AllOf(0), BitsOf(v) & AllOf(0x7fffffffu)), power, FloatOf(AllOf(kZeroPower)));
}

// The operands of one group of products: values and powers of the tile and of the panel.
struct AlignedGroup {
  float a[kGemmMaxRows][kAlignedProducts];
  float a_powers[kGemmMaxRows][kAlignedProducts];
  const float* b;  // [count, width]
  float b_powers[kAlignedProducts * 2 * kLanes];
  int64_t count;
};

// sum = the register after the group's products were added to it.
inline F32x16 AddAligned(const AlignedGroup& g, int row, int width, int column, F32x16 sum) {
  F32x16 largest = Max(FloatOf(BitsOf(sum) & AllOf(0x7f800000u)), FloatOf(AllOf(kLeastPower)));
  for (int64_t k = 0; k < g.count; ++k) {
    const F32x16 power = Broadcast(g.a_powers[row][k]) * Load(g.b_powers + k * width + column);
    largest = Max(power, largest);
  }
  const F32x16 infinity = FloatOf(AllOf(0x7f800000u));
  const Mask finite = Less(largest, infinity);
  largest = Select(finite, largest, Broadcast(1.0f));
  // Multiplying by 2^(kept bits) / largest leaves what is kept before the point.
  const F32x16 up = FloatOf(AllOf(static_cast<uint32_t>(2 * 127 + kKeptBits) << 23) - BitsOf(largest));
  const F32x16 down = FloatOf(BitsOf(largest) - AllOf(static_cast<uint32_t>(kKeptBits) << 23));
  I32x16 total = Truncate(sum * up);
  for (int64_t k = 0; k < g.count; ++k) {
    total = total + Truncate(Broadcast(g.a[row][k]) * Load(g.b + k * width + column) * up);
  }
  const I32x16 kept = BitsOf(ToFloat(total)) & AllOf(~((1u << (23 - kKeptBits)) - 1));
  return Select(finite, FloatOf(kept) * down, FloatOf(AllOf(0x7fc00000u)));
}

inline void FillGroup(const float* a, int rows, int64_t row_stride, int64_t step_stride, const float* b, int width,
                      const TileOut& out, AlignedGroup* g) {
  for (int r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < g->count; ++k) g->a[r][k] = a[r * row_stride + k * step_stride];
    for (int64_t k = 0; k < g->count; k += kLanes) {
      const int n = g->count - k < kLanes ? static_cast<int>(g->count - k) : kLanes;
      StoreN(g->a_powers[r] + k, PowerOf(LoadN(g->a[r] + k, n), Broadcast(out.a_smallest)), n);
    }
  }
  g->b = b;
  for (int64_t i = 0; i < g->count * width; i += kLanes) {
    Store(g->b_powers + i, PowerOf(Load(b + i), Broadcast(out.b_smallest)));
  }
}

// A MicroKernel (gemm_level.h) for one tile and panel of decoded FP8 numbers, one in each dword.
[[gnu::noinline]] inline void ShortKernel(int rows, int vectors, int64_t row_stride, int64_t step_stride, int64_t k,
                                          const float* a, const float* b, const TileOut& out) {
  const int width = vectors * kLanes;
  F32x16 sum[kGemmMaxRows][2];
  for (int r = 0; r < rows; ++r) sum[r][0] = sum[r][1] = Zero();
  for (; k > 0; k -= kAlignedProducts) {
    AlignedGroup group;
    group.count = k < kAlignedProducts ? k : kAlignedProducts;
    FillGroup(a, rows, row_stride, step_stride, b, width, out, &group);
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) sum[r][v] = AddAligned(group, r, width, v * kLanes, sum[r][v]);
    }
    a += kAlignedProducts * step_stride;
    b += kAlignedProducts * width;
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) StoreTileVector(sum[r][v], out, r, v * kLanes);
  }
}

template <int kRows, int kVectors, int kRowStride, int kStepStride>
void ShortKernelOf(int64_t k, const float* a, const float* b, const TileOut& out) {
  ShortKernel(kRows, kVectors, kRowStride, kStepStride, k, a, b, out);
}

template <int kVectors, int kRows>
constexpr void FillShortTable(MicroTable& table) {
  table.at[kTileRows][kVectors][kRows] = ShortKernelOf<kRows, kVectors, kGemmRowStride, 1>;
  table.at[kTileColumns][kVectors][kRows] = ShortKernelOf<kRows, kVectors, 1, kLanes>;
  if constexpr (kRows > 1) FillShortTable<kVectors, kRows - 1>(table);
}

template <int kVectors, int kRows>
constexpr MicroTable MakeShortTable() {
  MicroTable table = {};
  FillShortTable<kVectors, kRows>(table);
  if constexpr (kVectors > 1) FillShortTable<1, kRows>(table);
  return table;
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
