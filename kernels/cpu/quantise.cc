// Number formats on the CPU: tiles get their scales and codes; codes become numbers again.
#include <cmath>
#include <cstdint>

#include "kernels/cpu/cpu_operations.h"
#include "kernels/e4m3.h"

namespace shoestring {
namespace {

// One element of a quantised row. Two e5m6 codes share three bytes, the first in the low bits.
uint32_t ReadCode(const std::byte* row, DType dtype, int64_t column) {
  if (dtype != DType::kE5M6) return static_cast<uint32_t>(row[column]);
  const std::byte* pair = row + column / 2 * 3;
  const uint32_t bits =
      static_cast<uint32_t>(pair[0]) | static_cast<uint32_t>(pair[1]) << 8 | static_cast<uint32_t>(pair[2]) << 16;
  return column % 2 == 0 ? bits & 0xfff : bits >> 12;
}

void WriteCode(std::byte* row, DType dtype, int64_t column, uint32_t code) {
  if (dtype != DType::kE5M6) {
    row[column] = static_cast<std::byte>(code);
    return;
  }
  std::byte* pair = row + column / 2 * 3;
  if (column % 2 == 0) {
    pair[0] = static_cast<std::byte>(code & 0xff);
    pair[1] = static_cast<std::byte>(code >> 8);
  } else {
    pair[1] = static_cast<std::byte>(static_cast<uint32_t>(pair[1]) | (code & 0xf) << 4);
    pair[2] = static_cast<std::byte>(code >> 4);
  }
}

uint32_t Encode(DType dtype, float value) {
  if (dtype == DType::kE4M3) return E4M3::Encode(value);
  return dtype == DType::kE5M2 ? E5M2::Encode(value) : E5M6::Encode(value);
}

float Decode(DType dtype, uint32_t code) {
  if (dtype == DType::kE4M3) return E4M3::Decode(code);
  return dtype == DType::kE5M2 ? E5M2::Decode(code) : E5M6::Decode(code);
}

float Largest(DType dtype) {
  if (dtype == DType::kE4M3) return E4M3::kLargest;
  return dtype == DType::kE5M2 ? E5M2::kLargest : E5M6::kLargest;
}

float ReadElement(const Operand& x, int64_t row, int64_t column) {
  const std::byte* bytes = x.values.row_bytes(row);
  if (x.values.dtype == DType::kF32) return reinterpret_cast<const float*>(bytes)[column];
  if (x.values.dtype == DType::kBF16) return static_cast<float>(reinterpret_cast<const BF16*>(bytes)[column]);
  return Decode(x.values.dtype, ReadCode(bytes, x.values.dtype, column)) *
         x.scales.as<float>(row)[column / x.tile.cols];
}

float ScaleOf(float largest_magnitude, DType dtype, bool power_of_two) {
  const float scale = largest_magnitude / Largest(dtype);
  if (scale == 0.0f) return 1.0f;
  if (!power_of_two || !(scale < INFINITY)) return scale;
  const uint32_t bits = std::bit_cast<uint32_t>(scale);
  const uint32_t exponent = bits & 0x7f800000u;
  return std::bit_cast<float>(bits == exponent ? exponent : exponent + 0x00800000u);
}

struct Block {
  int64_t row, rows, column, columns, scale_row;
};

void QuantizeBlock(const QuantizeArgs& args, const Block& block) {
  const MutableOperand& y = args.y;
  float largest = 0.0f;
  for (int64_t r = block.row; r < block.row + block.rows; ++r) {
    for (int64_t c = block.column; c < block.column + block.columns; ++c) {
      const float magnitude = std::fabs(ReadElement(args.x, r, c));
      if (magnitude > largest) largest = magnitude;
    }
  }
  const float scale = ScaleOf(largest, y.values.dtype, y.power_of_two);
  y.scales.as<float>(block.scale_row)[block.column / y.tile.cols] = scale;
  for (int64_t r = block.row; r < block.row + block.rows; ++r) {
    for (int64_t c = block.column; c < block.column + block.columns; ++c) {
      WriteCode(y.values.row_bytes(r), y.values.dtype, c, Encode(y.values.dtype, ReadElement(args.x, r, c) / scale));
    }
  }
}

// Rows [first, end) are cut into tiles from `first` on.
void QuantizeRows(const CpuContext& cpu, const QuantizeArgs& args, int64_t first, int64_t end, int64_t scale_row) {
  const Tile& tile = args.y.tile;
  const int64_t cols = args.x.values.cols;
  const int64_t tiles = (end - first + tile.rows - 1) / tile.rows;
  cpu.pool.ParallelFor(tiles, [&](int64_t i, int) {
    const int64_t row = first + i * tile.rows;
    const int64_t rows = std::min(tile.rows, end - row);
    for (int64_t c = 0; c < cols; c += tile.cols) {
      QuantizeBlock(args, {row, rows, c, std::min(tile.cols, cols - c), scale_row + i});
    }
  });
}

}  // namespace

void CpuQuantize(const CpuContext& cpu, const QuantizeArgs& args) {
  const Tile& tile = args.y.tile;
  const Segments& segments = args.segments;
  if (segments.groups > 0) {
    const int32_t* offsets = segments.offsets.as<int32_t>();
    for (int64_t e = 0; e < segments.groups; ++e) {
      const int64_t scale_row = tile.rows == 1 ? offsets[e] : SegmentScaleRow(tile, offsets[e], e);
      QuantizeRows(cpu, args, offsets[e], offsets[e + 1], scale_row);
    }
    return;
  }
  const int64_t rows = args.x.values.rows / args.stack;
  for (int64_t s = 0; s < args.stack; ++s) {
    QuantizeRows(cpu, args, s * rows, (s + 1) * rows, s * ScaleRows(tile, rows));
  }
}

void CpuDequantize(const CpuContext& cpu, const Operand& x, const View& y, int64_t stack, const ConstView& offsets) {
  const int64_t rows = offsets ? ExistingRows(offsets, x.values.rows) : x.values.rows;
  const int64_t each = x.values.rows / stack;
  const int64_t scale_rows = ScaleRows(x.tile, each);
  cpu.pool.ParallelFor(rows, [&](int64_t row, int) {
    const float* scales = x.scales.as<float>(row / each * scale_rows + row % each / x.tile.rows);
    for (int64_t c = 0; c < x.values.cols; ++c) {
      const float value =
          Decode(x.values.dtype, ReadCode(x.values.row_bytes(row), x.values.dtype, c)) * scales[c / x.tile.cols];
      if (y.dtype == DType::kF32) {
        reinterpret_cast<float*>(y.row_bytes(row))[c] = value;
      } else {
        reinterpret_cast<BF16*>(y.row_bytes(row))[c] = BF16(value);
      }
    }
  });
}

}  // namespace shoestring
