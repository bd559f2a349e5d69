// The scales of FP8 operands where the GEMM driver wants them: one row of numbers for each interval of K.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gemm.h"

namespace shoestring {

// scales[i] = scale of element (row, column + i) of the stored matrix, i in [0, count).
inline void ScalesAlongRow(const ScaleGrid& grid, int64_t row, int64_t column, int64_t count, float* scales) {
  const float* from = grid.data + row / grid.tile.rows * grid.stride;
  int64_t tile = column / grid.tile.cols, left = grid.tile.cols - column % grid.tile.cols;
  for (int64_t i = 0; i < count; left = grid.tile.cols, ++tile) {
    const int64_t end = std::min(count, i + left);
    for (; i < end; ++i) scales[i] = from[tile];
  }
}

// scales[i] = scale of element (row + i, column).
inline void ScalesDownColumn(const ScaleGrid& grid, int64_t row, int64_t column, int64_t count, float* scales) {
  const float* from = grid.data + row / grid.tile.rows * grid.stride + column / grid.tile.cols;
  int64_t left = grid.tile.rows - row % grid.tile.rows;
  for (int64_t i = 0; i < count; left = grid.tile.rows, from += grid.stride) {
    const int64_t end = std::min(count, i + left);
    for (; i < end; ++i) scales[i] = *from;
  }
}

// Of rows [row, row + rows) of A at element k of K.
inline void RowScales(const GemmCall& call, int64_t row, int64_t rows, int64_t k, float* scales) {
  if (call.layout == GemmLayout::kTN) return ScalesAlongRow(call.fp8.a, k, row, rows, scales);
  ScalesDownColumn(call.fp8.a, row, k, rows, scales);
}

// Of columns [column, column + columns) of B at element k of K.
inline void ColumnScales(const GemmCall& call, int64_t column, int64_t columns, int64_t k, float* scales) {
  if (call.layout == GemmLayout::kNT) return ScalesDownColumn(call.fp8.b, column, k, columns, scales);
  ScalesAlongRow(call.fp8.b, k, column, columns, scales);
}

}  // namespace shoestring
