// The register tile and packing functions, written once over simd.h; each gemm_<level>.cc compiles them for its level.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/fp8_level.h"
#include "kernels/cpu/gemm_micro.h"
#include "kernels/cpu/simd.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

struct MultiplyFloats {
  static F32x16 Apply(F32x16 a, F32x16 b, F32x16 sum) { return Fma(a, b, sum); }
};

#if defined(__AVX512BF16__)
struct MultiplyBf16Pairs {
  static F32x16 Apply(F32x16 a, F32x16 b, F32x16 sum) {
    return {_mm512_dpbf16_ps(sum.v, (__m512bh)_mm512_castps_si512(a.v), (__m512bh)_mm512_castps_si512(b.v))};
  }
};
#endif

inline void StoreTileVector(F32x16 sum, const TileOut& out, int row, int column) {
  const int n = out.columns - column < kLanes ? out.columns - column : kLanes;
  if (n <= 0) return;
  if (out.row_scales != nullptr) {
    const F32x16 scale = Broadcast(out.row_scales[row]) * LoadN(out.column_scales + column, n);
    const F32x16 earlier = out.earlier != nullptr ? LoadN(out.earlier + row * out.earlier_stride + column, n) : Zero();
    sum = FusedMultiplyAdd(sum, scale, earlier);
  } else if (out.earlier != nullptr) {
    sum = LoadN(out.earlier + row * out.earlier_stride + column, n) + sum;
  }
  const int64_t at = row * out.stride + column;
  if (out.f32 != nullptr) {
    if (out.add_f32) sum = LoadN(out.f32 + at, n) + sum;
    StoreN(out.f32 + at, sum, n);
  } else if (out.bf16 != nullptr) {
    StoreBf16N(out.bf16 + at, sum, n);
  } else {
    StoreN(out.partial + row * out.partial_stride + column, sum, n);
  }
}

template <typename Multiply, int kRows, int kVectors, int kRowStride, int kStepStride>
void MicroKernel(int64_t k, const float* a, const float* b, const TileOut& out) {
  F32x16 sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = Zero();
  }
  for (; k > 0; --k) {
    F32x16 bs[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) bs[v] = Load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const F32x16 ar = Broadcast(a[r * kRowStride]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Multiply::Apply(ar, bs[v], sum[r][v]);
    }
    a += kStepStride;
    b += kVectors * kLanes;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) StoreTileVector(sum[r][v], out, r, v * kLanes);
  }
}

template <typename Multiply, int kVectors, int kRows>
constexpr void FillMicroTable(MicroTable& table) {
  table.at[kTileRows][kVectors][kRows] = MicroKernel<Multiply, kRows, kVectors, kGemmRowStride, 1>;
  table.at[kTileColumns][kVectors][kRows] = MicroKernel<Multiply, kRows, kVectors, 1, kLanes>;
  if constexpr (kRows > 1) FillMicroTable<Multiply, kVectors, kRows - 1>(table);
}

template <typename Multiply, int kVectors, int kRows>
constexpr MicroTable MakeMicroTable() {
  MicroTable table = {};
  FillMicroTable<Multiply, kVectors, kRows>(table);
  if constexpr (kVectors > 1) FillMicroTable<Multiply, 1, kRows>(table);
  return table;
}

// Sources: how many elements make a dword, and how to load up to sixteen dwords from one row, or down from rows of K.
struct FloatSource {
  using Element = float;
  static constexpr int kStep = 1;
  static F32x16 Along(const float* row, int elements) { return LoadN(row, elements); }
  static F32x16 Down(const float* row, int64_t, int, int columns) { return LoadN(row, columns); }
};

struct Bf16AsFloatSource {
  using Element = uint16_t;
  static constexpr int kStep = 1;
  static F32x16 Along(const uint16_t* row, int elements) { return LoadBf16N(row, elements); }
  static F32x16 Down(const uint16_t* row, int64_t, int, int columns) { return LoadBf16N(row, columns); }
};

#if defined(__AVX512BF16__)
struct Bf16PairSource {
  using Element = uint16_t;
  static constexpr int kStep = 2;
  static F32x16 Along(const uint16_t* row, int elements) { return LoadBf16PairsN(row, elements); }
  // `rows` of K are left, this one included: an odd K is completed by a row of zeros.
  static F32x16 Down(const uint16_t* row, int64_t ld, int rows, int columns) {
    return InterleaveBf16N(row, rows > 1 ? row + ld : row, columns, rows > 1 ? columns : 0);
  }
};
#endif

template <typename Format>
struct Fp8AsFloatSource {
  using Element = uint8_t;
  static constexpr int kStep = 1;
  static F32x16 Along(const uint8_t* row, int elements) { return DecodeSmall<Format>(LoadU8N(row, elements)); }
  static F32x16 Down(const uint8_t* row, int64_t, int, int columns) { return Along(row, columns); }
};

#if defined(__AVX512BF16__)
// Pairs with the first element in the upper half (LevelKernels::e4m3).
template <typename Format>
struct Fp8PairSource {
  using Element = uint8_t;
  static constexpr int kStep = 2;
  static F32x16 Along(const uint8_t* row, int elements) {
    const __mmask32 mask = static_cast<__mmask32>((uint64_t{1} << elements) - 1);
    const __m512i codes = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, row));
    return {_mm512_castsi512_ps(_mm512_rol_epi32(DecodeSmallToBf16<Format>(codes), 16))};
  }
  static F32x16 Down(const uint8_t* row, int64_t ld, int rows, int columns) {
    const I32x16 first = LoadU8N(row, columns);
    const I32x16 second = rows > 1 ? LoadU8N(row + ld, columns) : AllOf(0);
    const I32x16 codes = ShiftLeft<16>(first) | second;
    return {_mm512_castsi512_ps(DecodeSmallToBf16<Format>(codes.v))};
  }
};
#endif

template <typename Source>
void PackRows(const void* source, int64_t ld, int rows, int64_t k, float* tile) {
  constexpr int64_t kChunk = kLanes * Source::kStep;
  const auto* from = static_cast<const typename Source::Element*>(source);
  for (int r = 0; r < rows; ++r, from += ld, tile += kGemmRowStride) {
    int64_t i = 0;
    float* to = tile;
    for (; i + kChunk <= k; i += kChunk, to += kLanes) {
      __builtin_prefetch(from + rows * ld + i, 0, 2);  // the same row of the next tile
      Store(to, Source::Along(from + i, kChunk));
    }
    if (i < k) Store(to, Source::Along(from + i, static_cast<int>(k - i)));
  }
}

template <typename Source, int kVectors>
void PackPanelOf(const void* source, int64_t ld, int64_t k, int columns, float* panel) {
  const auto* from = static_cast<const typename Source::Element*>(source);
  const int first = columns < kLanes ? columns : kLanes;
  for (int64_t i = 0; i < k; i += Source::kStep, from += Source::kStep * ld, panel += kVectors * kLanes) {
    const int left = k - i < 2 ? 1 : 2;
    __builtin_prefetch(from + kVectors * kLanes, 0, 2);  // of the next panel
    Store(panel, Source::Down(from, ld, left, first));
    if constexpr (kVectors == 2) {
      Store(panel + kLanes, columns > kLanes ? Source::Down(from + kLanes, ld, left, columns - kLanes) : Zero());
    }
  }
}

template <typename Source>
void PackPanel(const void* source, int64_t ld, int64_t k, int columns, int vectors, float* panel) {
  if (vectors == 2) return PackPanelOf<Source, 2>(source, ld, k, columns, panel);
  PackPanelOf<Source, 1>(source, ld, k, columns, panel);
}

// The tiles [0, kTiles) of PackTiles, whose places were found once instead of at every step of K.
template <typename Source, int kTiles>
void PackTileGroup(const typename Source::Element* from, int64_t ld, int64_t k, const int64_t* start, int readable,
                   int64_t spacing, float* to) {
  int valid[kTiles];
  for (int t = 0; t < kTiles; ++t) {
    valid[t] = readable - start[t] < kLanes ? static_cast<int>(readable - start[t]) : kLanes;
  }
  const bool whole = valid[kTiles - 1] == kLanes;
  // Rows of the next tiles, most likely.
  const int64_t ahead = start[kTiles - 1] + kLanes;
  for (int64_t i = 0; i < k; i += Source::kStep, from += Source::kStep * ld, to += kLanes) {
    const int left = k - i < 2 ? 1 : 2;
    __builtin_prefetch(from + ahead, 0, 2);
    __builtin_prefetch(from + ahead + 2 * kLanes, 0, 2);
    if (whole) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) Store(to + t * spacing, Source::Down(from + start[t], ld, left, kLanes));
    } else {
      for (int t = 0; t < kTiles; ++t) Store(to + t * spacing, Source::Down(from + start[t], ld, left, valid[t]));
    }
  }
}

template <typename Source>
void PackTiles(const void* source, int64_t ld, int64_t k, int rows, int readable, int tiles, int64_t spacing,
               float* to) {
  const auto* from = static_cast<const typename Source::Element*>(source);
  // Rows of the next tile are read too where they exist, and not used.
  int t = 0;
  for (; t + 4 <= tiles; t += 4) {
    const int64_t start[4] = {TileStart(rows, tiles, t), TileStart(rows, tiles, t + 1), TileStart(rows, tiles, t + 2),
                              TileStart(rows, tiles, t + 3)};
    PackTileGroup<Source, 4>(from, ld, k, start, readable, spacing, to + t * spacing);
  }
  for (; t < tiles; ++t) {
    const int64_t start[1] = {TileStart(rows, tiles, t)};
    PackTileGroup<Source, 1>(from, ld, k, start, readable, spacing, to + t * spacing);
  }
}

template <typename Source>
void PackPanelTransposed(const void* source, int64_t ld, int64_t k, int columns, int vectors, float* panel) {
  constexpr int64_t kChunk = kLanes * Source::kStep;
  const int64_t width = vectors * kLanes;
  for (int v = 0; v < vectors; ++v) {
    const auto* from = static_cast<const typename Source::Element*>(source) + v * kLanes * ld;
    const int rows = columns - v * kLanes < kLanes ? columns - v * kLanes : kLanes;
    for (int64_t i = 0; i < k; i += kChunk) {
      const int elements = static_cast<int>(k - i < kChunk ? k - i : kChunk);
      const int dwords = (elements + Source::kStep - 1) / Source::kStep;
      F32x16 square[kLanes];
      for (int r = 0; r < kLanes; ++r) square[r] = r < rows ? Source::Along(from + r * ld + i, elements) : Zero();
      Transpose16(square);
      float* to = panel + i / Source::kStep * width + v * kLanes;
      for (int d = 0; d < dwords; ++d) Store(to + d * width, square[d]);
    }
  }
}

template <typename Source>
constexpr PackTable MakePackTable() {
  return {PackRows<Source>, PackPanel<Source>, PackTiles<Source>, PackPanelTransposed<Source>};
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
