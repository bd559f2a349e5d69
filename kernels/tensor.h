// Views of typed memory: what a kernel is handed. A view owns nothing; whoever allocated the bytes (an Arena) does.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace shoestring {

enum class DType : uint8_t {
  kF32,
  kBF16,
  kE4M3,  // 1 sign, 4 exponent, 3 fraction bits, no infinity (OCP 8-bit floating point specification)
  kE5M2,  // 1 sign, 5 exponent, 2 fraction bits (the same specification)
  kE5M6,  // 12 bits: 1 sign, 5 exponent, 6 fraction bits; two values in three bytes; storage only
  kI32,
  kI64,
  kF64,
  kU8,
};

// Bytes of one element; of kE5M6, which shares bytes between neighbours, there is no such number: see BytesOf.
constexpr int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kBF16: return 2;
    case DType::kI64:
    case DType::kF64: return 8;
    case DType::kE4M3:
    case DType::kE5M2:
    case DType::kU8: return 1;
    case DType::kE5M6: CHECK(dtype != DType::kE5M6);
  }
  return 0;
}

// Bytes of `elements` neighbouring elements; of kE5M6 an even number of them.
constexpr int64_t BytesOf(DType dtype, int64_t elements) {
  if (dtype != DType::kE5M6) return elements * SizeOf(dtype);
  CHECK_EQ(elements % 2, 0);
  return elements / 2 * 3;
}

// Types that mean nothing without the scales of their tiles.
constexpr bool IsQuantised(DType dtype) {
  return dtype == DType::kE4M3 || dtype == DType::kE5M2 || dtype == DType::kE5M6;
}

const char* Name(DType dtype);  // "f32", "bf16", ...

// The upper half of an FP32 number. Converting from FP32 rounds to nearest even; a NaN stays a NaN.
struct BF16 {
  uint16_t bits = 0;
  BF16() = default;
  explicit BF16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40);
    } else {
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};

// A row-major matrix [rows, cols] whose rows start `stride` elements apart (stride >= cols). A vector is [1, n].
// A stack of matrices [E, N, K] is passed as [E*N, K]. `Byte` is std::byte or const std::byte.
template <typename Byte>
struct BasicView {
  Byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // in elements

  BasicView() = default;
  BasicView(Byte* data, DType dtype, int64_t rows, int64_t cols, int64_t stride)
      : data(data), dtype(dtype), rows(rows), cols(cols), stride(stride) {
    CHECK_GE(stride, cols);
  }
  BasicView(Byte* data, DType dtype, int64_t rows, int64_t cols) : BasicView(data, dtype, rows, cols, cols) {}
  // A mutable view is also a constant one.
  operator BasicView<const std::byte>() const { return {data, dtype, rows, cols, stride}; }

  bool empty() const { return rows == 0 || cols == 0; }
  explicit operator bool() const { return data != nullptr; }
  int64_t elements() const { return rows * cols; }
  int64_t bytes() const { return BytesOf(dtype, elements()); }
  bool contiguous() const { return stride == cols || rows <= 1; }

  Byte* row_bytes(int64_t row) const { return data + BytesOf(dtype, row * stride); }
  BasicView Rows(int64_t first, int64_t count) const {
    CHECK_LE(first + count, rows);
    return {row_bytes(first), dtype, count, cols, stride};
  }
  BasicView Columns(int64_t first, int64_t count) const {
    CHECK_LE(first + count, cols);
    return {data + BytesOf(dtype, first), dtype, rows, count, stride};
  }
  // The same contiguous elements in another shape.
  BasicView Reshape(int64_t new_rows, int64_t new_cols) const {
    CHECK(contiguous());
    CHECK_EQ(new_rows * new_cols, elements());
    return {data, dtype, new_rows, new_cols, new_cols};
  }
  // Typed pointer to the first element of a row; the dtype must match.
  template <typename T>
  auto* as(int64_t row = 0) const {
    CHECK(dtype == DTypeOf<T>::value);
    using Pointee = std::conditional_t<std::is_const_v<Byte>, const T, T>;
    return reinterpret_cast<Pointee*>(row_bytes(row));
  }
};

using View = BasicView<std::byte>;
using ConstView = BasicView<const std::byte>;

// The block of elements that share one scale; {0, 0} for types without scales.
struct Tile {
  int64_t rows = 0;
  int64_t cols = 0;
};

// Rows of the scales of a stack of `stack` equal matrices with `rows` rows together: tiles start anew at each matrix.
constexpr int64_t ScaleRows(const Tile& tile, int64_t rows, int64_t stack = 1) {
  return stack * ((rows / stack + tile.rows - 1) / tile.rows);
}
constexpr int64_t ScaleColumns(const Tile& tile, int64_t cols) { return (cols + tile.cols - 1) / tile.cols; }
// The same of a grouped matrix whose tiles start anew at each group's segment of rows: the scales of the j-th tile of
// group e are in row SegmentScaleRow(tile, offsets[e], e) + j. Some rows between groups stay unused, so that nobody
// needs to sum over groups to find a scale.
constexpr int64_t SegmentScaleRow(const Tile& tile, int64_t first_row, int64_t group) {
  return first_row / tile.rows + group;
}
constexpr int64_t SegmentScaleRows(const Tile& tile, int64_t max_rows, int64_t groups) {
  return SegmentScaleRow(tile, max_rows, groups);
}

// What a matrix product reads, or what an operation writes for it: values and, for quantised types, the f32 scales of
// their tiles; a value stands for code * scale. Plain views convert to operands without scales, so that a bare FP8
// tensor cannot be passed without its recipe by accident: Backend refuses quantised values that come without scales.
template <typename ViewType>
struct BasicOperand {
  ViewType values;
  ViewType scales;
  Tile tile;
  bool power_of_two = false;  // whoever writes the scales rounds them up to powers of two

  BasicOperand() = default;
  template <typename V>
  requires std::is_convertible_v<V, ViewType> BasicOperand(const V& view) : values(view) {}  // implicit on purpose
  BasicOperand(ViewType values, ViewType scales, Tile tile, bool power_of_two = false)
      : values(values), scales(scales), tile(tile), power_of_two(power_of_two) {}
  // A mutable operand is also a constant one.
  template <typename V>
  requires std::is_convertible_v<V, ViewType> BasicOperand(const BasicOperand<V>& other)
      : values(other.values), scales(other.scales), tile(other.tile), power_of_two(other.power_of_two) {}

  explicit operator bool() const { return static_cast<bool>(values); }
  bool quantised() const { return IsQuantised(values.dtype); }
};
using Operand = BasicOperand<ConstView>;
using MutableOperand = BasicOperand<View>;

// Which expert owns which rows of a grouped matrix: rows [offsets[e], offsets[e+1]) belong to expert e. The offsets
// are i32 [1, groups + 1] in device memory: the host never waits for them. Rows at and beyond offsets[groups] up to
// `max_rows` are padding: never read, never written.
struct Segments {
  ConstView offsets;
  int64_t groups = 0;
  int64_t max_rows = 0;
  // Rows of all groups together where the host knows them (of tokens that other ranks sent); -1: it does not. Changes
  // no result: it is what work is counted at.
  int64_t known_rows = -1;

  int64_t counted_rows() const { return known_rows >= 0 ? known_rows : max_rows; }
};

}  // namespace shoestring
