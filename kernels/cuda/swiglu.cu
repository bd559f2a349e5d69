// SwiGLU and its gradient on the GPU.
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/cuda_operations.h"

namespace shoestring {
namespace {

struct SwiGluCall {
  InRows gate_up;
  const float* row_weight;
  const int32_t* last_offset;
  int64_t rows, width;
};

template <typename T, bool kVector, typename Result>
__global__ void __launch_bounds__(kSpanThreads) SwiGluKernel(SwiGluCall call, Result result) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int64_t chunk = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  // A warp lies inside one row, so that all of it leaves here or none.
  if (row >= ExistingRows(call.last_offset, call.rows)) return;
  const int n = ChunkSize(chunk, call.width);
  const T* gate = call.gate_up.Row<T>(row) + chunk * kChunk;
  float g[kChunk], u[kChunk];
  LoadChunk<kVector>(gate, n, g);
  LoadChunk<kVector>(gate + call.width, n, u);
  const float weight = call.row_weight != nullptr ? call.row_weight[row] : 1.0f;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) g[i] = g[i] * Sigmoid<T>(g[i]) * u[i] * weight;
  result.template Write<kVector>(row, chunk, n, g);
}

struct SwiGluBackwardCall {
  SwiGluCall forward;
  InRows dy;
  OutRows d_gate_up;
  float* d_row_weight;
  int64_t chunks;
};

// y = silu(g) u w, silu(g) = g sig(g), silu'(g) = sig(g) (1 + g (1 - sig(g))):
// dg = dy w u silu'(g),  du = dy w silu(g),  dw = sum_j dy silu(g) u.
template <typename T, bool kVector>
__global__ void __launch_bounds__(kRowThreads) SwiGluBackwardKernel(SwiGluBackwardCall call) {
  __shared__ float shared[kRowBlockThreads];
  const SwiGluCall& forward = call.forward;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool exists = row < ExistingRows(forward.last_offset, forward.rows);
  const float weight = exists && forward.row_weight != nullptr ? forward.row_weight[row] : 1.0f;
  float d_weight = 0;
  for (int64_t c = 0; exists && c < call.chunks; ++c) {
    const int64_t chunk = c * blockDim.x + threadIdx.x;
    const int n = ChunkSize(chunk, forward.width);
    const T* gate = forward.gate_up.Row<T>(row) + chunk * kChunk;
    float g[kChunk], u[kChunk], d[kChunk];
    LoadChunk<kVector>(gate, n, g);
    LoadChunk<kVector>(gate + forward.width, n, u);
    LoadChunk<kVector>(call.dy.Row<T>(row) + chunk * kChunk, n, d);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float sigmoid = Sigmoid<T>(g[i]);
      const float silu = g[i] * sigmoid;
      const float dw = d[i] * weight;
      d_weight = fmaf(d[i] * silu, u[i], d_weight);
      g[i] = dw * u[i] * sigmoid * fmaf(g[i], 1.0f - sigmoid, 1.0f);
      u[i] = dw * silu;
    }
    T* d_gate = call.d_gate_up.Row<T>(row) + chunk * kChunk;
    StoreChunk<kVector>(d_gate, n, g);
    StoreChunk<kVector>(d_gate + forward.width, n, u);
  }
  if (call.d_row_weight == nullptr) return;
  d_weight = RowReduce(d_weight, shared, AddOp());
  if (exists && threadIdx.x == 0) call.d_row_weight[row] = d_weight;
}

SwiGluCall CallOf(const SwiGluArgs& args) {
  return {InOf(args.gate_up), PointerOrNull<float>(args.row_weight), LastOffset(args.offsets), args.gate_up.rows,
          args.gate_up.cols / 2};
}

// Both halves of a row.
template <typename ViewType>
bool HalvesAllowVectors(const ViewType& gate_up) {
  return AllowsVectors(gate_up) && gate_up.cols / 2 % kChunk == 0;
}

template <typename T, typename Result>
void LaunchSwiGlu(CudaStream& stream, const SwiGluArgs& args, bool result_allows, int lanes, Result result) {
  const SwiGluCall call = CallOf(args);
  // Whole tiles: the lanes behind a ragged end take part in finding its scale.
  const SpanPlan plan = PlanSpans(DivideUp(Chunks(call.width), lanes) * lanes);
  const dim3 grid(DivideUp(call.rows, plan.rows_per_block), plan.spans);
  const dim3 threads(plan.threads, plan.rows_per_block);
  WithBool(result_allows && HalvesAllowVectors(args.gate_up),
           [&](auto vector) { SwiGluKernel<T, vector><<<grid, threads, 0, stream.get()>>>(call, result); });
  CUDA_CHECK_LAUNCH();
}

// Tiles of unusual width: made first, then quantised. Rows that do not exist are left alone in both.
void SwiGluThenQuantise(CudaStream& stream, const SwiGluArgs& args, const MutableOperand& y) {
  const int64_t row_bytes = DivideUp(y.values.cols * SizeOf(args.gate_up.dtype), 16) * 16;
  CHECK_LE(row_bytes * args.gate_up.rows, stream.workspace_bytes());
  const View made(stream.workspace(), args.gate_up.dtype, args.gate_up.rows, y.values.cols,
                  row_bytes / SizeOf(args.gate_up.dtype));
  CudaSwiGlu(stream, args, made);
  CudaQuantizeRows(stream, made, y, args.offsets);
}

}  // namespace

void CudaSwiGlu(CudaStream& stream, const SwiGluArgs& args, const MutableOperand& y) {
  if (args.gate_up.rows == 0) return;
  const int lanes = y.quantised() ? TileLanes(y.tile.cols) : 1;
  if (lanes == 0) return SwiGluThenQuantise(stream, args, y);
  WithActivation(args.gate_up.dtype, [&](auto act) {
    using T = decltype(act);
    const View& values = y.values;
    if (values.dtype == DType::kE4M3) {
      LaunchSwiGlu<T>(stream, args, AllowsCodeVectors(values), lanes,
                      CodedResult<T, DType::kE4M3>{CodesOf(y), lanes, y.power_of_two});
    } else if (values.dtype == DType::kE5M2) {
      LaunchSwiGlu<T>(stream, args, AllowsCodeVectors(values), lanes,
                      CodedResult<T, DType::kE5M2>{CodesOf(y), lanes, y.power_of_two});
    } else {
      LaunchSwiGlu<T>(stream, args, AllowsVectors(values), lanes, PlainResult<T>{OutOf(values)});
    }
  });
}

void CudaSwiGluBackward(CudaStream& stream, const SwiGluArgs& args, const ConstView& dy, const View& d_gate_up,
                        const View& d_row_weight) {
  if (args.gate_up.rows == 0) return;
  const SwiGluCall forward = CallOf(args);
  const RowPlan plan = PlanRow(forward.width);
  const SwiGluBackwardCall call = {forward, InOf(dy), OutOf(d_gate_up), PointerOrNull<float>(d_row_weight),
                                   plan.chunks};
  const bool vector = HalvesAllowVectors(args.gate_up) && AllowsVectors(dy) && HalvesAllowVectors(d_gate_up);
  WithActivation(args.gate_up.dtype, [&](auto act) {
    WithBool(vector, [&](auto is_vector) {
      SwiGluBackwardKernel<decltype(act), is_vector>
          <<<DivideUp(forward.rows, plan.rows_per_block), dim3(plan.threads, plan.rows_per_block), 0, stream.get()>>>(
              call);
    });
  });
  CUDA_CHECK_LAUNCH();
}

}  // namespace shoestring
