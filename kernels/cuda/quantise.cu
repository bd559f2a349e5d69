// Number formats on the GPU: tiles get their scales and codes; codes become numbers again.
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/cuda_operations.h"

namespace shoestring {
namespace {

// --- tiles of one row -----------------------------------------------------------------------------------------------

// Rows [*first or 0, *end or all).
struct RowRange {
  const int32_t* first = nullptr;
  const int32_t* end = nullptr;
  int64_t rows = 0;
  __device__ bool Has(int64_t row) const {
    return row >= (first != nullptr ? *first : 0) && row < ExistingRows(end, rows);
  }
};

// A lane holds a chunk; `lanes` of them share a tile.
template <DType kFormat, bool kVector, typename Source>
__global__ void __launch_bounds__(kSpanThreads)
    QuantiseRowKernel(Source x, CodedResult<float, kFormat> result, RowRange range, int64_t cols) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (!range.Has(row)) return;  // a whole warp
  const int64_t chunk = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  const int n = ChunkSize(chunk, cols);
  float v[kChunk];
  x.template Load<kVector>(row, chunk * kChunk, n, v);
  result.template Write<kVector>(row, chunk, n, v);
}

// --- bands: tiles of several rows -----------------------------------------------------------------------------------

struct Band {
  int64_t first, end;  // rows whose tiles have their scales in one row
};

// Which rows belong to a row of scales: in a stack tiles start anew at each matrix, with segments at each segment.
struct BandRule {
  int64_t tile_rows = 1;
  int64_t matrix_rows = 0;   // of one matrix of the stack
  int64_t matrix_bands = 1;  // of one matrix
  const int32_t* offsets = nullptr;
  int64_t groups = 0;
  int64_t max_rows = 0;

  // Empty for rows of scales that belong to nobody.
  __device__ Band Find(int64_t i) const {
    if (offsets == nullptr) {
      const int64_t matrix = i / matrix_bands, first = matrix * matrix_rows + i % matrix_bands * tile_rows;
      return {first, min(first + tile_rows, (matrix + 1) * matrix_rows)};
    }
    DEVICE_CHECK(offsets[groups] <= max_rows);
    int64_t low = 0, high = groups;  // the last group whose tiles start at or before i is in [low, high)
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (Start(middle) <= i ? low : high) = middle;
    }
    if (i < Start(low)) return {0, 0};
    const int64_t first = offsets[low] + (i - Start(low)) * tile_rows;
    return {first, min(first + tile_rows, int64_t{offsets[low + 1]})};
  }

 private:
  __device__ int64_t Start(int64_t group) const { return offsets[group] / tile_rows + group; }
};

// Tiles of at most 128 rows that are one column or 128 columns wide. A block takes 128 columns of a band: sixteen
// threads beside each other hold a row, a thread up to eight rows of a chunk, all of it in registers.
constexpr int kBandCols = 128;
constexpr int kBandRows = 128;
constexpr int kBandThreads = 256;
constexpr int kAcross = kBandCols / kChunk;
constexpr int kDown = kBandThreads / kAcross;
constexpr int kRowsEach = kBandRows / kDown;

template <DType kFormat, bool kColumns, bool kVector, typename Source>
__global__ void __launch_bounds__(kBandThreads)
    QuantiseBandKernel(Source x, OutCodes y, BandRule rule, int64_t cols, bool power_of_two) {
  __shared__ float largest_of[kDown][kBandCols];
  __shared__ float scale_of[kBandCols];
  const Band band = rule.Find(blockIdx.x);
  if (band.first >= band.end) return;
  const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross;
  const int64_t col = int64_t{blockIdx.y} * kBandCols + across * kChunk;
  const int n = ChunkSize(col / kChunk, cols);
  float v[kRowsEach][kChunk], largest[kChunk] = {};
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r) {
    const int64_t row = band.first + r * kDown + down;
    x.template Load<kVector>(row, col, row < band.end ? n : 0, v[r]);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) largest[i] = fmaxf(largest[i], fabsf(v[r][i]));
  }
  float* scales = y.scales + blockIdx.x * y.scale_stride;
  if constexpr (kColumns) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) largest_of[down][across * kChunk + i] = largest[i];
    __syncthreads();
    if (threadIdx.x < kBandCols) {
      float all = 0;
      for (int d = 0; d < kDown; ++d) all = fmaxf(all, largest_of[d][threadIdx.x]);
      const float scale = ScaleOf<kFormat>(all, power_of_two);
      scale_of[threadIdx.x] = scale;
      const int64_t own = int64_t{blockIdx.y} * kBandCols + threadIdx.x;
      if (own < cols) scales[own] = scale;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      ScaleDivider(scale_of[across * kChunk + i]).Divide<kRowsEach>([&](int r) -> float& { return v[r][i]; });
    }
  } else {
    float all = 0;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) all = fmaxf(all, largest[i]);
    const float scale = ScaleOf<kFormat>(RowReduce(all, scale_of, MaxOp()), power_of_two);
    if (threadIdx.x == 0) scales[blockIdx.y] = scale;
    const ScaleDivider divide(scale);
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r) divide.Divide<kChunk>([&](int i) -> float& { return v[r][i]; });
  }
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r) {
    const int64_t row = band.first + r * kDown + down;
    if (row < band.end) StoreCodes<kFormat, kVector>(y.codes + row * y.stride, col, n, v[r]);
  }
}

// Any other tile: a block for each, element after element. For shapes that no recipe uses.
constexpr int kTileThreads = 128;

template <typename Source>
__device__ float LoadSingle(const Source& x, int64_t row, int64_t col) {
  float v[kChunk];
  const int64_t first = col / kChunk * kChunk;
  const int lane = static_cast<int>(col - first);
  x.template Load<false>(row, first, lane + 1, v);
  float value = 0;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) value = i == lane ? v[i] : value;  // no register has an address
  return value;
}

template <DType kFormat, typename Source>
__global__ void __launch_bounds__(kTileThreads)
    QuantiseTileKernel(Source x, OutCodes y, BandRule rule, RowRange range, int64_t cols, bool power_of_two) {
  __shared__ float shared[kWarp];
  const Band band = rule.Find(blockIdx.x);
  // Tiles of one row: the band is the row, and its number is that of its scales.
  if (band.first >= band.end || (rule.tile_rows == 1 && !range.Has(band.first))) return;
  const int64_t left = blockIdx.y * y.tile_cols;
  const int64_t width = min(y.tile_cols, cols - left);
  const int64_t elements = (band.end - band.first) * width;
  float largest = 0;
  for (int64_t i = threadIdx.x; i < elements; i += kTileThreads) {
    largest = fmaxf(largest, fabsf(LoadSingle(x, band.first + i / width, left + i % width)));
  }
  const float scale = ScaleOf<kFormat>(RowReduce(largest, shared, MaxOp()), power_of_two);
  if (threadIdx.x == 0) y.scales[blockIdx.x * y.scale_stride + blockIdx.y] = scale;
  const ScaleDivider divide(scale);
  using Definition = typename CodeFormat<kFormat>::Definition;
  const auto code_of = [&](int64_t i) {
    return Definition::Encode(divide(LoadSingle(x, band.first + i / width, left + i % width)));
  };
  if constexpr (kFormat != DType::kE5M6) {
    for (int64_t i = threadIdx.x; i < elements; i += kTileThreads) {
      y.codes[(band.first + i / width) * y.stride + left + i % width] = static_cast<uint8_t>(code_of(i));
    }
  } else {  // pairs; tiles have one row and an even number of columns
    for (int64_t i = 2 * threadIdx.x; i < elements; i += 2 * kTileThreads) {
      const uint32_t pair = code_of(i) | code_of(i + 1) << 12;
      uint8_t* to = y.codes + band.first * y.stride + (left + i) / 2 * 3;
      for (int byte = 0; byte < 3; ++byte) to[byte] = static_cast<uint8_t>(pair >> 8 * byte);
    }
  }
}

// --- launches -------------------------------------------------------------------------------------------------------

// fn(source, whether it allows vectors) for what is quantised.
template <typename Fn>
void WithSource(const Operand& x, Fn fn) {
  if (x.quantised()) {
    WithFormat(x.values.dtype, [&](auto format) { fn(CodedSource<format>{CodesOf(x)}, AllowsCodeVectors(x.values)); });
  } else {
    WithActivation(x.values.dtype,
                   [&](auto act) { fn(PlainSource<decltype(act)>{InOf(x.values)}, AllowsVectors(x.values)); });
  }
}

void QuantiseRows(CudaStream& stream, const Operand& x, const MutableOperand& y, const RowRange& range, int lanes) {
  const int64_t cols = x.values.cols;
  const SpanPlan plan = PlanSpans(DivideUp(Chunks(cols), lanes) * lanes);
  const dim3 grid(DivideUp(range.rows, plan.rows_per_block), plan.spans);
  const dim3 threads(plan.threads, plan.rows_per_block);
  WithSource(x, [&](auto source, bool source_allows) {
    WithFormat(y.values.dtype, [&](auto format) {
      const CodedResult<float, format> result = {CodesOf(y), lanes, y.power_of_two};
      WithBool(source_allows && AllowsCodeVectors(y.values), [&](auto vector) {
        QuantiseRowKernel<format, vector><<<grid, threads, 0, stream.get()>>>(source, result, range, cols);
      });
    });
  });
  CUDA_CHECK_LAUNCH();
}

void QuantiseBands(CudaStream& stream, const Operand& x, const MutableOperand& y, const BandRule& rule, int64_t bands,
                   const RowRange& range) {
  const int64_t cols = x.values.cols;
  const bool column = y.tile.cols == 1;
  const bool usual = y.tile.rows > 1 && y.tile.rows <= kBandRows && (column || y.tile.cols == kBandCols);
  WithSource(x, [&](auto source, bool source_allows) {
    WithFormat(y.values.dtype, [&](auto format) {
      if (!usual) {
        const dim3 grid(bands, ScaleColumns(y.tile, cols));
        QuantiseTileKernel<format>
            <<<grid, kTileThreads, 0, stream.get()>>>(source, CodesOf(y), rule, range, cols, y.power_of_two);
        return;
      }
      if constexpr (format != DType::kE5M6) {  // which is made in tiles of one row only
        const dim3 grid(bands, DivideUp(cols, kBandCols));
        WithBool(source_allows && AllowsCodeVectors(y.values), [&](auto vector) {
          WithBool(column, [&](auto columns) {
            QuantiseBandKernel<format, columns, vector>
                <<<grid, kBandThreads, 0, stream.get()>>>(source, CodesOf(y), rule, cols, y.power_of_two);
          });
        });
      }
    });
  });
  CUDA_CHECK_LAUNCH();
}

void Quantise(CudaStream& stream, const Operand& x, const MutableOperand& y, int64_t stack, const Segments& segments,
              const RowRange& range) {
  const int64_t rows = x.values.rows;
  if (rows == 0 || x.values.cols == 0) return;
  const int lanes = TileLanes(y.tile.cols);
  if (y.tile.rows == 1 && lanes > 0) return QuantiseRows(stream, x, y, range, lanes);
  BandRule rule = {
      .tile_rows = y.tile.rows, .matrix_rows = rows / stack, .matrix_bands = ScaleRows(y.tile, rows / stack)};
  int64_t bands = ScaleRows(y.tile, rows, stack);
  if (segments.groups > 0 && y.tile.rows > 1) {
    rule.offsets = segments.offsets.as<int32_t>();
    rule.groups = segments.groups;
    rule.max_rows = rows;
    bands = SegmentScaleRows(y.tile, rows, segments.groups);
  }
  QuantiseBands(stream, x, y, rule, bands, range);
}

// --- back to numbers ------------------------------------------------------------------------------------------------

struct DequantiseCall {
  OutRows y;
  const int32_t* last_offset;
  int64_t rows, cols, matrix_rows, matrix_bands, tile_rows;
};

template <DType kFormat, bool kVector>
__global__ void __launch_bounds__(kSpanThreads) DequantiseKernel(CodedSource<kFormat> x, DequantiseCall call) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int64_t chunk = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (row >= ExistingRows(call.last_offset, call.rows)) return;
  const int n = ChunkSize(chunk, call.cols);
  int64_t scale_row = row;  // of tiles of one row
  if (call.tile_rows > 1) {
    const uint32_t matrix = static_cast<uint32_t>(row) / static_cast<uint32_t>(call.matrix_rows);
    const uint32_t in_matrix = static_cast<uint32_t>(row - matrix * call.matrix_rows);
    scale_row = matrix * call.matrix_bands + in_matrix / static_cast<uint32_t>(call.tile_rows);
  }
  float v[kChunk];
  x.template Load<kVector>(row, scale_row, chunk * kChunk, n, v);
  StoreEither<kVector>(call.y, row, chunk * kChunk, n, v);
}

}  // namespace

void CudaQuantize(CudaStream& stream, const QuantizeArgs& args) {
  RowRange range = {.rows = args.x.values.rows};
  if (args.segments.groups > 0) {
    range.first = args.segments.offsets.as<int32_t>();
    range.end = LastOffset(args.segments.offsets);
  }
  Quantise(stream, args.x, args.y, args.stack, args.segments, range);
}

void CudaQuantizeRows(CudaStream& stream, const ConstView& x, const MutableOperand& y, const ConstView& offsets) {
  Quantise(stream, x, y, 1, {}, {.end = LastOffset(offsets), .rows = x.rows});
}

void CudaDequantize(CudaStream& stream, const Operand& x, const View& y, int64_t stack, const ConstView& offsets) {
  const int64_t rows = x.values.rows, cols = x.values.cols;
  if (rows == 0 || cols == 0) return;
  CHECK_LT(std::max(rows, cols), int64_t{1} << 32);
  const SpanPlan plan = PlanSpans(Chunks(cols));
  const dim3 grid(DivideUp(rows, plan.rows_per_block), plan.spans), threads(plan.threads, plan.rows_per_block);
  const DequantiseCall call = {
      OutOf(y), LastOffset(offsets), rows, cols, rows / stack, ScaleRows(x.tile, rows / stack), x.tile.rows};
  WithFormat(x.values.dtype, [&](auto format) {
    WithBool(AllowsCodeVectors(x.values) && AllowsVectors(y), [&](auto vector) {
      DequantiseKernel<format, vector><<<grid, threads, 0, stream.get()>>>(CodedSource<format>{CodesOf(x)}, call);
    });
  });
  CUDA_CHECK_LAUNCH();
}

}  // namespace shoestring
