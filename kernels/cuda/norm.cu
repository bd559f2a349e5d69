// RMSNorm and its gradients on the GPU.
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/cuda_operations.h"

namespace shoestring {
namespace {

// Calls body(slot, chunk, n) for the chunks of a thread, every thread of a row the same number of times; slot is below
// kRegisterChunks where rows stay in registers.
template <bool kKept, typename Body>
__device__ __forceinline__ void ForRowChunks(int64_t chunks, int64_t cols, Body body) {
  if constexpr (kKept) {
#pragma unroll
    for (int c = 0; c < kRegisterChunks; ++c) {
      if (c < chunks) {
        const int64_t chunk = int64_t{c} * blockDim.x + threadIdx.x;
        body(c, chunk, ChunkSize(chunk, cols));
      }
    }
  } else {
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t chunk = c * blockDim.x + threadIdx.x;
      body(0, chunk, ChunkSize(chunk, cols));
    }
  }
}

struct NormCall {
  InRows x, delta;
  OutRows sum;
  InRows gain;
  double eps;
  float* inverse_rms;
  int64_t rows, cols, chunks;
};

// kFast: vectors, and the row is kept in registers between the two passes. The order of the sum is the same without.
template <typename T, bool kFast, typename Result>
__global__ void __launch_bounds__(kRowThreads) NormKernel(NormCall call, Result result) {
  __shared__ float shared[kRowBlockThreads];
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool exists = row < call.rows;
  const T* x = call.x.Row<T>(row);
  const T* delta = call.delta.data != nullptr ? call.delta.Row<T>(row) : nullptr;
  T* sum = delta != nullptr ? call.sum.Row<T>(row) : nullptr;
  float kept[kFast ? kRegisterChunks : 1][kChunk];
  float squares = 0;
  ForRowChunks<kFast>(call.chunks, call.cols, [&](int slot, int64_t chunk, int n) {
    if (!exists) n = 0;
    float(&v)[kChunk] = kept[slot];
    LoadChunk<kFast>(x + chunk * kChunk, n, v);
    if (delta != nullptr) {
      float d[kChunk];
      LoadChunk<kFast>(delta + chunk * kChunk, n, d);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] = RoundAs<T>(v[i] + d[i]);  // what the residual stream holds is normalised
      StoreChunk<kFast>(sum + chunk * kChunk, n, v);
    }
#pragma unroll
    for (int i = 0; i < kChunk; ++i) squares = fmaf(v[i], v[i], squares);
  });
  squares = RowReduce(squares, shared, AddOp());
  const double mean = static_cast<double>(squares) / static_cast<double>(call.cols);
  const float inverse = static_cast<float>(1.0 / sqrt(mean + call.eps));
  if (exists && threadIdx.x == 0 && call.inverse_rms != nullptr) call.inverse_rms[row] = inverse;
  const T* again = delta != nullptr ? sum : x;
  ForRowChunks<kFast>(call.chunks, call.cols, [&](int slot, int64_t chunk, int n) {
    float v[kChunk], gain[kChunk];
    const int of_row = n;
    if (!exists) n = 0;
    if constexpr (kFast) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] = kept[slot][i];
    } else {
      LoadChunk<false>(again + chunk * kChunk, n, v);
    }
    LoadEither<kFast>(call.gain, 0, chunk * kChunk, of_row, gain);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = v[i] * inverse * gain[i];
    result.template Write<kFast>(row, chunk, n, v);
  });
}

struct NormInputCall {
  InRows dy, x, gain;
  const float* inverse_rms;
  InRows add;
  OutRows dx;
  int64_t rows, cols, chunks;
};

// With r = 1 / sqrt(mean(x^2) + eps), y_j = g_j x_j r and dr/dx_j = -r^3 x_j / D:
// dx_j = r g_j dy_j - x_j (r^3 / D) sum_k g_k dy_k x_k.
template <typename T, bool kFast>
__global__ void __launch_bounds__(kRowThreads) NormInputKernel(NormInputCall call) {
  __shared__ float shared[kRowBlockThreads];
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool exists = row < call.rows;
  float kept_x[kFast ? kRegisterChunks : 1][kChunk], kept_gdy[kFast ? kRegisterChunks : 1][kChunk];
  const auto load = [&](int64_t chunk, int n, float(&x)[kChunk], float(&gdy)[kChunk]) {
    float gain[kChunk];
    LoadChunk<kFast>(call.x.Row<T>(row) + chunk * kChunk, n, x);
    LoadChunk<kFast>(call.dy.Row<T>(row) + chunk * kChunk, n, gdy);
    LoadEither<kFast>(call.gain, 0, chunk * kChunk, n, gain);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) gdy[i] = gain[i] * gdy[i];
  };
  float products = 0;
  ForRowChunks<kFast>(call.chunks, call.cols, [&](int slot, int64_t chunk, int n) {
    load(chunk, exists ? n : 0, kept_x[slot], kept_gdy[slot]);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) products = fmaf(kept_gdy[slot][i], kept_x[slot][i], products);
  });
  products = RowReduce(products, shared, AddOp());
  if (!exists) return;
  const float inverse = call.inverse_rms[row];
  const double r = inverse;
  const float pull = static_cast<float>(-r * r * r * static_cast<double>(products) / static_cast<double>(call.cols));
  ForRowChunks<kFast>(call.chunks, call.cols, [&](int slot, int64_t chunk, int n) {
    if constexpr (!kFast) load(chunk, n, kept_x[slot], kept_gdy[slot]);
    float v[kChunk], add[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = fmaf(kept_x[slot][i], pull, kept_gdy[slot][i] * inverse);
    if (call.add.data != nullptr) {
      LoadChunk<kFast>(call.add.Row<T>(row) + chunk * kChunk, n, add);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] = add[i] + v[i];
    }
    StoreChunk<kFast>(call.dx.Row<T>(row) + chunk * kChunk, n, v);
  });
}

// The gradient of gains. A block sums 256 rows of 256 columns: a warp 32 rows in order, then the warps in order.
constexpr int kWeightRows = 256;  // part of the numerics: kernels/operations.h
constexpr int kWeightWarps = 8;
constexpr int kWeightCols = kWarp * kChunk;

struct NormWeightCall {
  InRows dy, x;
  const float* inverse_rms;
  int64_t rows, cols;
  float* partial;  // [blocks, cols]
};

template <typename T, bool kVector>
__global__ void __launch_bounds__(kWarp* kWeightWarps) NormWeightKernel(NormWeightCall call) {
  __shared__ float shared[kWeightWarps][kWeightCols];
  const int64_t chunk = int64_t{blockIdx.y} * kWarp + threadIdx.x;
  const int n = ChunkSize(chunk, call.cols);
  const int64_t block_row = int64_t{blockIdx.x} * kWeightRows;
  const int64_t first = block_row + threadIdx.y * (kWeightRows / kWeightWarps);
  const int64_t end = min(first + kWeightRows / kWeightWarps, call.rows);
  float sums[kChunk] = {};
#pragma unroll 4
  for (int64_t row = first; row < end; ++row) {
    float x[kChunk], dy[kChunk];
    LoadChunk<kVector>(call.x.Row<T>(row) + chunk * kChunk, n, x);
    LoadChunk<kVector>(call.dy.Row<T>(row) + chunk * kChunk, n, dy);
    const float scale = call.inverse_rms[row];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) sums[i] = fmaf(dy[i], x[i] * scale, sums[i]);
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) shared[threadIdx.y][i * kWarp + threadIdx.x] = sums[i];
  __syncthreads();
  // One column a thread; column i * 32 + lane of the block lies at lane * 8 + i.
  const int slot = threadIdx.y * kWarp + threadIdx.x;
  const int64_t col = int64_t{blockIdx.y} * kWeightCols + (slot % kWarp) * kChunk + slot / kWarp;
  if (col >= call.cols) return;
  float total = shared[0][slot];
  for (int warp = 1; warp < kWeightWarps; ++warp) total += shared[warp][slot];
  call.partial[blockIdx.x * call.cols + col] = total;
}

__global__ void AddPartialsKernel(const float* partial, int64_t blocks, int64_t cols, float* d_gain) {
  const int64_t col = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (col >= cols) return;
  float total = d_gain[col];
  for (int64_t block = 0; block < blocks; ++block) total += partial[block * cols + col];
  d_gain[col] = total;
}

template <typename T, typename Result>
void LaunchNorm(CudaStream& stream, const RmsNormArgs& args, bool result_allows, Result result) {
  const RowPlan plan = PlanRow(args.x.cols);
  const NormCall call = {InOf(args.x),    InOf(args.delta), OutOf(args.sum),
                         InOf(args.gain), args.eps,         PointerOrNull<float>(args.inverse_rms),
                         args.x.rows,     args.x.cols,      plan.chunks};
  const bool fast = FitsRegisters(plan) && result_allows && AllowsVectors(args.x) && AllowsVectors(args.gain) &&
                    (!args.delta || (AllowsVectors(args.delta) && AllowsVectors(args.sum)));
  const dim3 threads(plan.threads, plan.rows_per_block);
  WithBool(fast, [&](auto is_fast) {
    NormKernel<T, is_fast><<<DivideUp(call.rows, plan.rows_per_block), threads, 0, stream.get()>>>(call, result);
  });
  CUDA_CHECK_LAUNCH();
}

// Tiles of unusual width: made first, a part that fits the workspace at a time, then quantised.
void NormThenQuantise(CudaStream& stream, const RmsNormArgs& args) {
  const int64_t row_bytes = DivideUp(args.x.cols * SizeOf(args.x.dtype), 16) * 16;
  const int64_t at_once = stream.workspace_bytes() / row_bytes;
  CHECK_GT(at_once, 0);
  for (int64_t first = 0; first < args.x.rows; first += at_once) {
    const int64_t count = std::min(at_once, args.x.rows - first);
    const View made(stream.workspace(), args.x.dtype, count, args.x.cols, row_bytes / SizeOf(args.x.dtype));
    RmsNormArgs part = args;
    part.x = args.x.Rows(first, count);
    if (args.delta) part.delta = args.delta.Rows(first, count), part.sum = args.sum.Rows(first, count);
    if (args.inverse_rms) part.inverse_rms = args.inverse_rms.Columns(first, count);
    part.y = made;
    CudaRmsNorm(stream, part);
    MutableOperand y = args.y;
    y.values = args.y.values.Rows(first, count);
    y.scales = args.y.scales.Rows(first, count);
    CudaQuantize(stream, {ConstView(made), y, 1, {}});
  }
}

}  // namespace

void CudaRmsNorm(CudaStream& stream, const RmsNormArgs& args) {
  if (args.x.rows == 0) return;
  const int lanes = args.y.quantised() ? TileLanes(args.y.tile.cols) : 0;
  if (args.y.quantised() && lanes == 0) return NormThenQuantise(stream, args);
  WithActivation(args.x.dtype, [&](auto act) {
    using T = decltype(act);
    const View& y = args.y.values;
    if (y.dtype == DType::kE4M3) {
      LaunchNorm<T>(stream, args, AllowsCodeVectors(y),
                    CodedResult<T, DType::kE4M3>{CodesOf(args.y), lanes, args.y.power_of_two});
    } else if (y.dtype == DType::kE5M2) {
      LaunchNorm<T>(stream, args, AllowsCodeVectors(y),
                    CodedResult<T, DType::kE5M2>{CodesOf(args.y), lanes, args.y.power_of_two});
    } else {
      LaunchNorm<T>(stream, args, AllowsVectors(y), PlainResult<T>{OutOf(y)});
    }
  });
}

void CudaRmsNormBackwardInput(CudaStream& stream, const RmsNormBackwardInputArgs& args) {
  if (args.x.rows == 0) return;
  const RowPlan plan = PlanRow(args.x.cols);
  const NormInputCall call = {InOf(args.dy),  InOf(args.x),   InOf(args.gain), args.inverse_rms.as<float>(),
                              InOf(args.add), OutOf(args.dx), args.x.rows,     args.x.cols,
                              plan.chunks};
  const bool fast = FitsRegisters(plan) && AllowsVectors(args.dy) && AllowsVectors(args.x) &&
                    AllowsVectors(args.gain) && AllowsVectors(args.add) && AllowsVectors(args.dx);
  WithActivation(args.x.dtype, [&](auto act) {
    WithBool(fast, [&](auto is_fast) {
      NormInputKernel<decltype(act), is_fast>
          <<<DivideUp(call.rows, plan.rows_per_block), dim3(plan.threads, plan.rows_per_block), 0, stream.get()>>>(
              call);
    });
  });
  CUDA_CHECK_LAUNCH();
}

void CudaRmsNormBackwardWeight(CudaStream& stream, const RmsNormBackwardWeightArgs& args) {
  const int64_t rows = args.x.rows, cols = args.x.cols;
  const int64_t at_once = stream.workspace_bytes() / (cols * SizeOf(DType::kF32));  // blocks
  CHECK_GT(at_once, 0);
  const bool vector = AllowsVectors(args.dy) && AllowsVectors(args.x);
  float* partial = reinterpret_cast<float*>(stream.workspace());
  for (int64_t first = 0; first < rows; first += at_once * kWeightRows) {
    const int64_t count = std::min(at_once * kWeightRows, rows - first);
    const int64_t blocks = DivideUp(count, kWeightRows);
    const NormWeightCall call = {InOf(args.dy.Rows(first, count)),
                                 InOf(args.x.Rows(first, count)),
                                 args.inverse_rms.as<float>() + first,
                                 count,
                                 cols,
                                 partial};
    const dim3 grid(blocks, DivideUp(cols, kWeightCols));
    WithActivation(args.x.dtype, [&](auto act) {
      WithBool(vector, [&](auto is_vector) {
        NormWeightKernel<decltype(act), is_vector><<<grid, dim3(kWarp, kWeightWarps), 0, stream.get()>>>(call);
      });
    });
    CUDA_CHECK_LAUNCH();
    constexpr int kThreads = 128;
    AddPartialsKernel<<<DivideUp(cols, kThreads), kThreads, 0, stream.get()>>>(partial, blocks, cols,
                                                                               args.d_gain.as<float>());
    CUDA_CHECK_LAUNCH();
  }
}

}  // namespace shoestring
