// Where cuBLASLt expects the scales of block-scaled FP8 operands on Hopper (cuBLAS documentation, "1D and 2D block
// scaling").
#pragma once

#include <cstdint>

namespace shoestring::cuda {

// Element (outer, inner) lies at outer * stride + inner.
struct ScaleLayout {
  int64_t outer = 0;
  int64_t inner = 0;
  int64_t stride = 0;  // inner rounded up to 4: rows of 16 bytes
  constexpr int64_t elements() const { return outer * stride; }
};

namespace internal {
constexpr int64_t Blocks(int64_t x) { return (x + 127) / 128; }
constexpr int64_t Four(int64_t x) { return (x + 3) / 4 * 4; }
}  // namespace internal

// CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F: one scale for 128 neighbours along k; block of k outside, row inside.
constexpr ScaleLayout VectorScaleLayout(int64_t rows, int64_t k) {
  return {internal::Blocks(k), rows, internal::Four(rows)};
}
// CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F: block of rows outside, block of k inside.
constexpr ScaleLayout BlockScaleLayout(int64_t rows, int64_t k) {
  return {internal::Blocks(rows), internal::Blocks(k), internal::Four(internal::Blocks(k))};
}
constexpr int64_t VectorScaleIndex(const ScaleLayout& layout, int64_t row, int64_t k) {
  return k / 128 * layout.stride + row;
}
constexpr int64_t BlockScaleIndex(const ScaleLayout& layout, int64_t row, int64_t k) {
  return row / 128 * layout.stride + k / 128;
}

}  // namespace shoestring::cuda
