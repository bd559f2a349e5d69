// Vector loops between numbers and the codes and scales of tiles.
#pragma once

#include "kernels/cpu/fp8_level.h"
#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

// Two codes of twelve bits share three bytes, the first in the low bits; `column` and n are even.
inline void StorePairs(uint8_t* row, int64_t column, I32x16 codes, int n) {
  uint8_t* to = row + column / 2 * 3;
  if (n == kLanes) return StoreU12(to, codes);
  uint8_t all[kLanes / 2 * 3];
  StoreU12(all, codes);
  __builtin_memcpy(to, all, n / 2 * 3);
}

// `column` may be odd.
inline I32x16 LoadPairs(const uint8_t* row, int64_t column, int n) {
  const uint8_t* from = row + column / 2 * 3;
  if (n == kLanes && column % 2 == 0) return LoadU12(from);
  float lanes[kLanes];
  uint32_t code[kLanes] = {};
  for (int i = 0; i < n; ++i) {
    const uint8_t* pair = row + (column + i) / 2 * 3;
    code[i] = (column + i) % 2 == 0 ? pair[0] | (pair[1] & 15u) << 8 : pair[1] >> 4 | uint32_t{pair[2]} << 4;
  }
  __builtin_memcpy(lanes, code, sizeof(code));
  return BitsOf(Load(lanes));
}

template <typename Format>
inline void StoreCodes(uint8_t* row, int64_t column, I32x16 codes, int n) {
  if constexpr (Format::kSignShift > 7) {
    StorePairs(row, column, codes, n);
  } else {
    StoreU8N(row + column, codes, n);
  }
}

inline F32x16 LoadDecoded(CodeFormat format, const uint8_t* row, int64_t column, int n) {
  switch (format) {
    case CodeFormat::kE4M3: return DecodeSmall<E4M3Format>(LoadU8N(row + column, n));
    case CodeFormat::kE5M2: return DecodeSmall<E5M2Format>(LoadU8N(row + column, n));
    case CodeFormat::kE5M6: return DecodeSmall<E5M6Format>(LoadPairs(row, column, n));
  }
  return Zero();
}

// What is quantised: numbers, or numbers that codes in tiles of one row stand for. ForRow(row, cols, run) calls
// run(column, values, n) for all columns in order, like ForLanes.
template <typename T>
struct PlainSource {
  explicit PlainSource(const QuantiseLoop& loop) : x(loop.x) {}
  F32x16 Load(int64_t row, int64_t column, int n) const { return LoadFrom(RowOf<T>(x, row) + column, n); }
  template <typename Run>
  void ForRow(int64_t row, int64_t cols, Run run) const {
    const T* from = RowOf<T>(x, row);
    ForLanes(cols, [&](int64_t j, auto n) { run(j, LoadFrom(from + j, n), n); });
  }
  ConstRows x;
};
struct CodedSource {
  explicit CodedSource(const QuantiseLoop& loop) : x(loop.coded) {}
  // `tile` is that of `column`.
  F32x16 LoadInTile(int64_t row, int64_t column, int n, int64_t tile) const {
    const float* scales = x.scales + row * x.scale_stride;
    const F32x16 values = LoadDecoded(x.format, x.codes + row * x.stride, column, n);
    if (column + n <= (tile + 1) * x.tile_cols) return values * Broadcast(scales[tile]);
    float lanes[kLanes] = {};
    for (int i = 0; i < n; ++i) lanes[i] = scales[(column + i) / x.tile_cols];
    return values * simd::Load(lanes);
  }
  F32x16 Load(int64_t row, int64_t column, int n) const { return LoadInTile(row, column, n, column / x.tile_cols); }
  template <typename Run>
  void ForRow(int64_t row, int64_t cols, Run run) const {
    int64_t tile = 0, tile_end = x.tile_cols;
    ForLanes(cols, [&](int64_t j, auto n) {
      for (; j >= tile_end; tile_end += x.tile_cols) ++tile;
      run(j, LoadInTile(row, j, n, tile), n);
    });
  }
  ConstCodedRows x;
};

inline F32x16 Magnitude(F32x16 v) { return FloatOf(BitsOf(v) & AllOf(0x7fffffffu)); }

// The scales of tiles whose largest magnitudes are given.
template <typename Format>
inline F32x16 ScalesOf(F32x16 largest, bool power_of_two) {
  const F32x16 infinity = FloatOf(AllOf(0x7f800000u));
  F32x16 scale = largest / FloatOf(AllOf(Format::kLargestBits));
  if (power_of_two) {
    const I32x16 bits = BitsOf(scale);
    const I32x16 exponent = bits & AllOf(0x7f800000u);
    const I32x16 up = Select(Less(exponent, bits), exponent + AllOf(0x00800000u), exponent);
    scale = Select(Less(scale, infinity), FloatOf(up), scale);
  }
  return Select(Less(Zero(), scale), scale, Broadcast(1.0f));
}

// One tile of rows [row, end) and columns [column, last).
template <typename Format, typename Source>
inline void QuantiseTile(const QuantiseLoop& loop, const Source& x, int64_t row, int64_t end, int64_t column,
                         int64_t last, float* scale_out) {
  F32x16 largest[2] = {Zero(), Zero()};
  for (int64_t r = row; r < end; ++r) {
    int64_t j = column;
    for (; j + 2 * kLanes <= last; j += 2 * kLanes) {
      largest[0] = Max(Magnitude(x.Load(r, j, Full{})), largest[0]);  // a NaN does not count
      largest[1] = Max(Magnitude(x.Load(r, j + kLanes, Full{})), largest[1]);
    }
    for (; j < last; j += kLanes) {
      const int n = last - j < kLanes ? static_cast<int>(last - j) : kLanes;
      largest[0] = Max(Magnitude(x.Load(r, j, n)), largest[0]);
    }
  }
  const F32x16 scale = ScalesOf<Format>(Broadcast(ReduceMax(Max(largest[0], largest[1]))), loop.power_of_two);
  StoreN(scale_out, scale, 1);
  for (int64_t r = row; r < end; ++r) {
    uint8_t* codes = loop.y.codes + r * loop.y.stride;
    ForLanes(last - column, [&](int64_t j, auto n) {
      StoreCodes<Format>(codes, column + j, EncodeSmall<Format>(x.Load(r, column + j, n) / scale), n);
    });
  }
}

// Tiles that are one column wide: each lane has its own. Whole rows at a time, so that memory is read in order; the
// scales' place holds the largest magnitudes first.
template <typename Format, typename Source>
inline void QuantiseColumns(const QuantiseLoop& loop, const Source& x, int64_t row, int64_t end, float* scales) {
  ForLanes(loop.cols, [&](int64_t j, auto n) { StoreN(scales + j, Zero(), n); });
  for (int64_t r = row; r < end; ++r) {
    x.ForRow(r, loop.cols,
             [&](int64_t j, F32x16 v, auto n) { StoreN(scales + j, Max(Magnitude(v), LoadN(scales + j, n)), n); });
  }
  ForLanes(loop.cols, [&](int64_t j, auto n) {
    StoreN(scales + j, ScalesOf<Format>(LoadN(scales + j, n), loop.power_of_two), n);
  });
  uint8_t* codes = loop.y.codes + row * loop.y.stride;
  for (int64_t r = row; r < end; ++r, codes += loop.y.stride) {
    x.ForRow(r, loop.cols, [&](int64_t j, F32x16 v, auto n) {
      StoreCodes<Format>(codes, j, EncodeSmall<Format>(v / LoadN(scales + j, n)), n);
    });
  }
}

template <typename Format, typename Source>
inline void QuantiseBands(const QuantiseLoop& loop, int64_t first_row, int64_t end_row, int64_t scale_row) {
  const Source x(loop);
  float* scales = loop.y.scales + scale_row * loop.y.scale_stride;
  const int64_t width = loop.y.tile_cols;
  for (int64_t row = first_row; row < end_row; row += loop.tile_rows, scales += loop.y.scale_stride) {
    const int64_t end = row + loop.tile_rows < end_row ? row + loop.tile_rows : end_row;
    if (width == 1) {
      QuantiseColumns<Format>(loop, x, row, end, scales);
      continue;
    }
    float* scale = scales;
    for (int64_t j = 0; j < loop.cols; j += width, ++scale) {
      const int64_t last = j + width < loop.cols ? j + width : loop.cols;
      QuantiseTile<Format>(loop, x, row, end, j, last, scale);
    }
  }
}

template <typename Format>
inline void QuantiseTo(const QuantiseLoop& loop, int64_t first_row, int64_t end_row, int64_t scale_row) {
  if (loop.x.data == nullptr) return QuantiseBands<Format, CodedSource>(loop, first_row, end_row, scale_row);
  if (loop.x.bf16) return QuantiseBands<Format, PlainSource<uint16_t>>(loop, first_row, end_row, scale_row);
  QuantiseBands<Format, PlainSource<float>>(loop, first_row, end_row, scale_row);
}

inline void QuantiseRows(const QuantiseLoop& loop, int64_t first_row, int64_t end_row, int64_t scale_row) {
  switch (loop.y.format) {
    case CodeFormat::kE4M3: return QuantiseTo<E4M3Format>(loop, first_row, end_row, scale_row);
    case CodeFormat::kE5M2: return QuantiseTo<E5M2Format>(loop, first_row, end_row, scale_row);
    case CodeFormat::kE5M6: return QuantiseTo<E5M6Format>(loop, first_row, end_row, scale_row);
  }
}

inline void DequantiseRow(const DequantiseLoop& loop, int64_t row, int64_t scale_row) {
  const uint8_t* codes = loop.x.codes + row * loop.x.stride;
  const float* scale = loop.x.scales + scale_row * loop.x.scale_stride;
  for (int64_t first = 0; first < loop.cols; first += loop.x.tile_cols, ++scale) {
    const F32x16 factor = Broadcast(*scale);
    const int64_t width = loop.cols - first < loop.x.tile_cols ? loop.cols - first : loop.x.tile_cols;
    ForLanes(width, [&](int64_t j, auto n) {
      StoreEither(loop.y, row, first + j, LoadDecoded(loop.x.format, codes, first + j, n) * factor, n);
    });
  }
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
