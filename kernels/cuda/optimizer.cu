// AdamW, the running mean of weights and sums of squares on the GPU.
#include <cmath>

#include "kernels/cuda/cuda_operations.h"
#include "kernels/cuda/device.cuh"

namespace shoestring {
namespace {

constexpr int kThreads = 256;

struct AdamWCall {
  OutRows master;  // all flat: one row
  InRows grad;
  OutRows m, v, compute;
  int64_t elements;
  float grad_scale, beta1, beta2, one_minus_beta1, one_minus_beta2, m_correction, v_correction, eps, learning_rate,
      weight_decay;
};

template <bool kVector>
__global__ void __launch_bounds__(kThreads) AdamWKernel(AdamWCall call) {
  const int64_t chunk = int64_t{blockIdx.x} * kThreads + threadIdx.x, first = chunk * kChunk;
  const int n = ChunkSize(chunk, call.elements);
  if (n <= 0) return;
  const auto in = [](const OutRows& x) { return InRows{x.data, x.stride, x.bf16}; };
  float g[kChunk], m[kChunk], v[kChunk], w[kChunk];
  LoadEither<kVector>(call.grad, 0, first, n, g);
  LoadEither<kVector>(in(call.m), 0, first, n, m);
  LoadEither<kVector>(in(call.v), 0, first, n, v);
  LoadEither<kVector>(in(call.master), 0, first, n, w);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const float gradient = g[i] * call.grad_scale;
    m[i] = fmaf(call.beta1, m[i], call.one_minus_beta1 * gradient);
    v[i] = fmaf(call.beta2, v[i], call.one_minus_beta2 * gradient * gradient);
    // The moments are rounded when they are stored; the update uses them as computed.
    const float update = __fdiv_rn(m[i] * call.m_correction, __fsqrt_rn(v[i] * call.v_correction) + call.eps);
    w[i] = w[i] - call.learning_rate * fmaf(call.weight_decay, w[i], update);
  }
  StoreEither<kVector>(call.m, 0, first, n, m);
  StoreEither<kVector>(call.v, 0, first, n, v);
  StoreEither<kVector>(call.master, 0, first, n, w);
  if (call.compute.data != nullptr) StoreEither<kVector>(call.compute, 0, first, n, w);
}

template <bool kVector>
__global__ void __launch_bounds__(kSpanThreads)
    EmaKernel(InRows weights, float keep, float take, OutRows ema, int64_t rows, int64_t cols) {
  const int64_t row = int64_t{blockIdx.y} * blockDim.y + threadIdx.y;
  const int64_t chunk = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int n = ChunkSize(chunk, cols);
  if (row >= rows || n <= 0) return;
  float w[kChunk], mean[kChunk];
  float* to = ema.Row<float>(row) + chunk * kChunk;
  LoadChunk<kVector>(weights.Row<float>(row) + chunk * kChunk, n, w);
  LoadChunk<kVector>(to, n, mean);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) mean[i] = fmaf(keep, mean[i], take * w[i]);
  StoreChunk<kVector>(to, n, mean);
}

// A block of the norm is cut into pieces, which are added in order.
constexpr int64_t kPiece = int64_t{1} << 16;
constexpr int64_t kPiecesPerBlock = kNormBlockElements / kPiece;

template <bool kVector>
__global__ void __launch_bounds__(kThreads) SquaresKernel(const float* x, int64_t elements, double* pieces) {
  __shared__ double shared[kWarp];
  const int64_t first = blockIdx.x * kPiece;
  const int64_t count = min(kPiece, elements - first);
  double sums[kChunk] = {};
#pragma unroll 4
  for (int64_t chunk = threadIdx.x; chunk < DivideUp(count, kChunk); chunk += kThreads) {
    float v[kChunk];
    LoadChunk<kVector>(x + first + chunk * kChunk, ChunkSize(chunk, count), v);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) sums[i] = fma(static_cast<double>(v[i]), static_cast<double>(v[i]), sums[i]);
  }
  double total = 0;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) total += sums[i];
  total = RowReduce(total, shared, AddOp());
  if (threadIdx.x == 0) pieces[blockIdx.x] = total;
}

// The rows of a contiguous tensor as one; others are left as they are.
template <typename ViewType>
ViewType Flat(const ViewType& x) {
  return x.contiguous() ? x.Reshape(1, x.elements()) : x;
}

}  // namespace

void CudaAdamW(CudaStream& stream, const AdamWArgs& args) {
  const int64_t elements = args.master.elements();
  if (elements == 0) return;
  const double step = static_cast<double>(args.step);
  const View master = Flat(args.master), m = Flat(args.m), v = Flat(args.v);
  const View compute = args.compute ? Flat(args.compute) : View();
  const ConstView grad = Flat(args.grad);
  const AdamWCall call = {.master = OutOf(master),
                          .grad = InOf(grad),
                          .m = OutOf(m),
                          .v = OutOf(v),
                          .compute = OutOf(compute),
                          .elements = elements,
                          .grad_scale = static_cast<float>(args.grad_scale),
                          .beta1 = static_cast<float>(args.beta1),
                          .beta2 = static_cast<float>(args.beta2),
                          .one_minus_beta1 = static_cast<float>(1 - args.beta1),
                          .one_minus_beta2 = static_cast<float>(1 - args.beta2),
                          .m_correction = static_cast<float>(1 / (1 - std::pow(args.beta1, step))),
                          .v_correction = static_cast<float>(1 / (1 - std::pow(args.beta2, step))),
                          .eps = static_cast<float>(args.eps),
                          .learning_rate = static_cast<float>(args.learning_rate),
                          .weight_decay = static_cast<float>(args.weight_decay)};
  const bool vector =
      AllowsVectors(master) && AllowsVectors(grad) && AllowsVectors(m) && AllowsVectors(v) && AllowsVectors(compute);
  WithBool(vector, [&](auto is_vector) {
    AdamWKernel<is_vector><<<DivideUp(Chunks(elements), kThreads), kThreads, 0, stream.get()>>>(call);
  });
  CUDA_CHECK_LAUNCH();
}

void CudaEma(CudaStream& stream, const ConstView& weights, double decay, const View& ema) {
  if (weights.empty()) return;
  const bool flat = weights.contiguous() && ema.contiguous();
  const ConstView from = flat ? Flat(weights) : weights;
  const View to = flat ? Flat(ema) : ema;
  const SpanPlan plan = PlanSpans(Chunks(from.cols));
  const dim3 threads(plan.threads, plan.rows_per_block), grid(plan.spans, DivideUp(from.rows, plan.rows_per_block));
  WithBool(AllowsVectors(from) && AllowsVectors(to), [&](auto vector) {
    EmaKernel<vector><<<grid, threads, 0, stream.get()>>>(
        InOf(from), static_cast<float>(decay), static_cast<float>(1 - decay), OutOf(to), from.rows, from.cols);
  });
  CUDA_CHECK_LAUNCH();
}

void CudaSquaredNorm(CudaStream& stream, const ConstView& x, const View& block_sums) {
  const int64_t elements = x.elements(), pieces = DivideUp(elements, kPiece);
  if (elements == 0) return;
  CHECK_LE(pieces * 8, stream.workspace_bytes());
  double* const partial = reinterpret_cast<double*>(stream.workspace());
  // Only the last piece can end inside a chunk.
  const bool vector = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && elements % kChunk == 0;
  WithBool(vector, [&](auto is_vector) {
    SquaresKernel<is_vector><<<pieces, kThreads, 0, stream.get()>>>(x.as<float>(), elements, partial);
  });
  CUDA_CHECK_LAUNCH();
  CudaAddPieces(stream, partial, pieces, kPiecesPerBlock, block_sums.as<double>(), block_sums.cols);
}

}  // namespace shoestring
