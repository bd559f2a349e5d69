// Embedding lookup and its gradient on the GPU.
#include "kernels/cuda/cuda_operations.h"
#include "kernels/cuda/device.cuh"

namespace shoestring {
namespace {

constexpr int kThreads = 256;

struct LookupCall {
  const int32_t* ids;
  int64_t tokens, vocabulary, cols;
  InRows table;
  OutRows x;
};

template <bool kVector>
__global__ void __launch_bounds__(kSpanThreads) LookupKernel(LookupCall call) {
  const int64_t token = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int64_t chunk = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  const int n = ChunkSize(chunk, call.cols);
  if (token >= call.tokens || n <= 0) return;
  const int64_t id = call.ids[token];
  DEVICE_CHECK(id >= 0 && id < call.vocabulary);
  float v[kChunk];
  LoadEither<kVector>(call.table, id, chunk * kChunk, n, v);
  StoreEither<kVector>(call.x, token, chunk * kChunk, n, v);
}

// --- gradient: tokens are put in the order of their ids, equal ones in their own order; then each id sums its rows
// ----

// Adds to place[t] how many tokens of this block's part stand before t in that order. Integers: any order of adding.
constexpr int kPart = 4096;  // tokens that a block compares its own with

__global__ void __launch_bounds__(kThreads)
    RankKernel(const int32_t* ids, int64_t tokens, int64_t vocabulary, int32_t* place) {
  __shared__ int32_t others[kThreads];
  const int64_t token = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int32_t own = token < tokens ? ids[token] : -1;
  if (token < tokens && blockIdx.y == 0) DEVICE_CHECK(own >= 0 && own < vocabulary);
  const int64_t first = int64_t{blockIdx.y} * kPart, end = min(first + kPart, tokens);
  int32_t before = 0;
  for (int64_t base = first; base < end; base += kThreads) {
    __syncthreads();
    others[threadIdx.x] = base + threadIdx.x < end ? ids[base + threadIdx.x] : INT32_MAX;
    __syncthreads();
    // Of equal ones, those of the others below this index stand before.
    const int earlier = static_cast<int>(min(max(token - base, int64_t{0}), int64_t{kThreads}));
#pragma unroll 8
    for (int i = 0; i < kThreads; ++i) before += others[i] < own || (others[i] == own && i < earlier) ? 1 : 0;
  }
  if (token < tokens && before > 0) atomicAdd(place + token, before);
}

__global__ void __launch_bounds__(kThreads) OrderKernel(const int32_t* place, int64_t tokens, int32_t* order) {
  const int64_t token = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (token < tokens) order[place[token]] = static_cast<int32_t>(token);
}

struct SumCall {
  const int32_t *ids, *order;
  int64_t tokens, cols;
  InRows dx;
  float* d_table;
  int64_t d_table_stride;
};

constexpr int kSumThreads = 64;  // chunks of a row beside each other
constexpr int kRowsAtOnce = 8;   // rows that a thread has under way

// A block takes the tokens of one id, from the first of them on, in 512 columns.
template <typename T, bool kVector>
__global__ void __launch_bounds__(kSumThreads) SumTokensKernel(SumCall call) {
  __shared__ int32_t tokens[kSumThreads];
  const int64_t first = blockIdx.x;
  const int32_t id = call.ids[call.order[first]];
  if (first > 0 && call.ids[call.order[first - 1]] == id) return;
  const int64_t chunk = int64_t{blockIdx.y} * kSumThreads + threadIdx.x;
  const int n = ChunkSize(chunk, call.cols);
  float* d_row = call.d_table + id * call.d_table_stride + chunk * kChunk;
  float sum[kChunk];
  LoadChunk<kVector>(d_row, n, sum);
  int count = kSumThreads;  // tokens of the id among those looked at: they are the first ones
  for (int64_t base = first; count == kSumThreads; base += kSumThreads) {
    __syncthreads();  // the list of the last round was read
    const int32_t token = base + threadIdx.x < call.tokens ? call.order[base + threadIdx.x] : -1;
    tokens[threadIdx.x] = token;
    count = __syncthreads_count(token >= 0 && call.ids[token] == id);
    for (int at = 0; at < count; at += kRowsAtOnce) {
      float v[kRowsAtOnce][kChunk];
#pragma unroll
      for (int u = 0; u < kRowsAtOnce; ++u) {
        if (at + u < count) LoadChunk<kVector>(call.dx.Row<T>(tokens[at + u]) + chunk * kChunk, n, v[u]);
      }
#pragma unroll
      for (int u = 0; u < kRowsAtOnce; ++u) {
        if (at + u >= count) continue;
#pragma unroll
        for (int i = 0; i < kChunk; ++i) sum[i] = sum[i] + v[u][i];
      }
    }
  }
  StoreChunk<kVector>(d_row, n, sum);
}

}  // namespace

void CudaEmbedding(CudaStream& stream, const ConstView& ids, const ConstView& table, const View& x) {
  if (x.empty()) return;
  const LookupCall call = {ids.as<int32_t>(), ids.cols, table.rows, table.cols, InOf(table), OutOf(x)};
  const SpanPlan plan = PlanSpans(Chunks(call.cols));
  const dim3 grid(DivideUp(call.tokens, plan.rows_per_block), plan.spans), threads(plan.threads, plan.rows_per_block);
  WithBool(AllowsVectors(table) && AllowsVectors(x),
           [&](auto vector) { LookupKernel<vector><<<grid, threads, 0, stream.get()>>>(call); });
  CUDA_CHECK_LAUNCH();
}

void CudaEmbeddingBackward(CudaStream& stream, const ConstView& ids, const ConstView& dx, const View& d_table) {
  const int64_t tokens = ids.cols;
  if (tokens == 0 || dx.cols == 0) return;
  CHECK_LE(2 * tokens * 4, stream.workspace_bytes());
  int32_t* const place = reinterpret_cast<int32_t*>(stream.workspace());
  int32_t* const order = place + tokens;
  CUDA_CHECK(cudaMemsetAsync(place, 0, tokens * 4, stream.get()));
  const int64_t blocks = DivideUp(tokens, kThreads);
  RankKernel<<<dim3(blocks, DivideUp(tokens, kPart)), kThreads, 0, stream.get()>>>(ids.as<int32_t>(), tokens,
                                                                                   d_table.rows, place);
  CUDA_CHECK_LAUNCH();
  OrderKernel<<<blocks, kThreads, 0, stream.get()>>>(place, tokens, order);
  CUDA_CHECK_LAUNCH();
  const SumCall call = {ids.as<int32_t>(), order, tokens, dx.cols, InOf(dx), d_table.as<float>(), d_table.stride};
  const dim3 grid(tokens, DivideUp(Chunks(dx.cols), kSumThreads));
  WithActivation(dx.dtype, [&](auto act) {
    WithBool(AllowsVectors(dx) && AllowsVectors(d_table), [&](auto vector) {
      SumTokensKernel<decltype(act), vector><<<grid, kSumThreads, 0, stream.get()>>>(call);
    });
  });
  CUDA_CHECK_LAUNCH();
}

}  // namespace shoestring
