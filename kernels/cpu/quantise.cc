// Number formats on the CPU: tiles get their scales and codes; codes become numbers again.
#include <cstdint>

#include "kernels/cpu/cpu_operations.h"

namespace shoestring {
namespace {

CodeFormat FormatOf(DType dtype) {
  if (dtype == DType::kE4M3) return CodeFormat::kE4M3;
  return dtype == DType::kE5M2 ? CodeFormat::kE5M2 : CodeFormat::kE5M6;
}

ConstCodedRows CodedRowsOf(const Operand& x) {
  return {reinterpret_cast<const uint8_t*>(x.values.data),
          BytesOf(x.values.dtype, x.values.stride),
          FormatOf(x.values.dtype),
          x.scales.as<float>(),
          x.scales.stride,
          x.tile.cols};
}

CodedRows CodedRowsOf(const MutableOperand& y) {
  return {reinterpret_cast<uint8_t*>(y.values.data),
          BytesOf(y.values.dtype, y.values.stride),
          FormatOf(y.values.dtype),
          y.scales.as<float>(),
          y.scales.stride,
          y.tile.cols};
}

// The rows of the tiles whose scales are in one row.
struct Band {
  int64_t first, end;
};

Band BandOfStack(const QuantizeArgs& args, int64_t i) {
  const int64_t rows = args.x.values.rows / args.stack, bands = ScaleRows(args.y.tile, rows);
  const int64_t first = i / bands * rows + i % bands * args.y.tile.rows;
  return {first, std::min(first + args.y.tile.rows, (i / bands + 1) * rows)};
}

// Empty for rows of scales between groups. `i` is at or behind the first group's first.
Band BandOfSegments(const QuantizeArgs& args, const int32_t* offsets, int64_t i) {
  const Tile& tile = args.y.tile;
  int64_t low = 0, high = args.segments.groups;  // the last group whose tiles start at or before i is in [low, high)
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (SegmentScaleRow(tile, offsets[middle], middle) <= i ? low : high) = middle;
  }
  const int64_t first = offsets[low] + (i - SegmentScaleRow(tile, offsets[low], low)) * tile.rows;
  return {first, std::min<int64_t>(first + tile.rows, offsets[low + 1])};
}

}  // namespace

QuantiseLoop MakeQuantiseLoop(const MutableOperand& y) {
  return {.x = {},
          .coded = {},
          .y = CodedRowsOf(y),
          .cols = y.values.cols,
          .tile_rows = y.tile.rows,
          .power_of_two = y.power_of_two};
}

void CpuQuantize(const CpuContext& cpu, const QuantizeArgs& args) {
  QuantiseLoop loop = MakeQuantiseLoop(args.y);
  if (args.x.quantised()) {
    loop.coded = CodedRowsOf(args.x);
  } else {
    loop.x = RowsOf(args.x.values);
  }
  const bool grouped = args.segments.groups > 0;
  const int32_t* offsets = grouped ? args.segments.offsets.as<int32_t>() : nullptr;
  const int64_t rows = args.x.values.rows;
  if (loop.tile_rows == 1) {
    const int64_t begin = grouped ? offsets[0] : 0, end = grouped ? offsets[args.segments.groups] : rows;
    ForRowRanges(cpu, end - begin, loop.cols,
                 [&](int64_t from, int64_t to) { cpu.ops.quantise(loop, begin + from, begin + to, begin + from); });
    return;
  }
  const int64_t begin = grouped ? SegmentScaleRow(args.y.tile, offsets[0], 0) : 0;
  const int64_t end = grouped ? SegmentScaleRow(args.y.tile, offsets[args.segments.groups], args.segments.groups)
                              : ScaleRows(args.y.tile, rows, args.stack);
  cpu.pool.ParallelFor(end - begin, [&](int64_t from_begin, int) {
    const int64_t i = begin + from_begin;
    const Band band = grouped ? BandOfSegments(args, offsets, i) : BandOfStack(args, i);
    if (band.first < band.end) cpu.ops.quantise(loop, band.first, band.end, i);
  });
}

void CpuDequantize(const CpuContext& cpu, const Operand& x, const View& y, int64_t stack, const ConstView& offsets) {
  const DequantiseLoop loop = {.x = CodedRowsOf(x), .y = RowsOf(y), .cols = x.values.cols};
  const int64_t rows = offsets ? ExistingRows(offsets, x.values.rows) : x.values.rows;
  const int64_t each = x.values.rows / stack, scale_rows = ScaleRows(x.tile, each), tile_rows = x.tile.rows;
  ForRowRanges(cpu, rows, loop.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      cpu.ops.dequantise(loop, row, row / each * scale_rows + row % each / tile_rows);
    }
  });
}

}  // namespace shoestring
