// Cross-entropy and sums on the GPU.
#include <cooperative_groups.h>

#include "kernels/cuda/cuda_operations.h"
#include "kernels/cuda/device.cuh"

namespace shoestring {
namespace {

struct CrossEntropyCall {
  InRows logits;
  const int32_t* targets;
  double grad_scale;
  float* loss;
  OutRows d_logits;
  int64_t cols, chunks;  // chunks of a thread
};

// A sum of e^(x - highest); in double where parts meet, so that a vocabulary of 129,280 loses no digits.
struct SoftmaxPart {
  double sum;
  float highest;
};
__device__ double Rescaled(double sum, float from, float to) {
  return sum == 0 ? 0 : sum * exp(static_cast<double>(from) - static_cast<double>(to));
}

// The part of one thread, while it reads: the sum grows with its own highest value.
struct RunningSoftmax {
  float highest = -INFINITY, sum = 0;
  __device__ __forceinline__ void Add(const float (&v)[kChunk], int n) {
    float largest = highest;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) largest = fmaxf(largest, i < n ? v[i] : -INFINITY);
    const float shift = largest == -INFINITY ? 0.0f : largest;
    sum *= expf(highest - shift);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) sum += i < n ? expf(v[i] - shift) : 0.0f;
    highest = largest;
  }
};

// The same in all threads of all blocks of the cluster; they meet twice.
__device__ SoftmaxPart ClusterSoftmax(const RunningSoftmax& own) {
  namespace cg = cooperative_groups;
  __shared__ float highest_of[kWarp];
  __shared__ double sum_of[kWarp];
  __shared__ SoftmaxPart part;
  const float highest = RowReduce(own.highest, highest_of, MaxOp());
  const double sum = RowReduce(Rescaled(own.sum, own.highest, highest), sum_of, AddOp());
  if (threadIdx.x == 0) part = {sum, highest};
  const cg::cluster_group cluster = cg::this_cluster();
  cluster.sync();
  SoftmaxPart all = {0, -INFINITY};
  const unsigned blocks = cluster.num_blocks();
  for (unsigned b = 0; b < blocks; ++b) all.highest = fmaxf(all.highest, cluster.map_shared_rank(&part, b)->highest);
  for (unsigned b = 0; b < blocks; ++b) {
    const SoftmaxPart* other = cluster.map_shared_rank(&part, b);
    all.sum += Rescaled(other->sum, other->highest, all.highest);
  }
  cluster.sync();  // nobody leaves while its part may be read
  return all;
}

// A cluster takes a row; thread t of block b its chunks c * all threads + b * 512 + t. kFast: vectors, and what was
// read stays in registers; the order of the sum is the same without.
template <typename Out, bool kFast>
__global__ void __launch_bounds__(kSoftmaxThreads) CrossEntropyKernel(CrossEntropyCall call) {
  namespace cg = cooperative_groups;
  const cg::cluster_group cluster = cg::this_cluster();
  const int64_t row = blockIdx.x / cluster.num_blocks();
  const int64_t width = int64_t{cluster.num_blocks()} * kSoftmaxThreads;
  const int64_t first = int64_t{cluster.block_rank()} * kSoftmaxThreads + threadIdx.x;
  const float* x = call.logits.Row<float>(row);
  const int64_t target = call.targets[row];
  DEVICE_CHECK(target >= -1 && target < call.cols);
  const float at_target = target >= 0 ? x[target] : 0.0f;  // read now: d_logits may be the same memory
  float kept[kFast ? kRegisterChunks : 1][kChunk];
  RunningSoftmax running;
  const auto for_chunks = [&](auto body) {
    if constexpr (kFast) {
#pragma unroll
      for (int c = 0; c < kRegisterChunks; ++c) body(c, c * width + first);
    } else {
      for (int64_t c = 0; c < call.chunks; ++c) body(0, c * width + first);
    }
  };
  if (target >= 0) {
    for_chunks([&](int slot, int64_t chunk) {
      const int n = ChunkSize(chunk, call.cols);
      if (n <= 0) return;
      LoadChunk<kFast>(x + chunk * kChunk, n, kept[slot]);
      running.Add(kept[slot], n);
    });
  }
  const SoftmaxPart all = ClusterSoftmax(running);
  if (cluster.block_rank() == 0 && threadIdx.x == 0) {
    call.loss[row] =
        target < 0
            ? 0.0f
            : static_cast<float>(log(all.sum) + static_cast<double>(all.highest) - static_cast<double>(at_target));
  }
  if (call.d_logits.data == nullptr) return;
  const float scale = static_cast<float>(call.grad_scale / all.sum);
  const double probability = static_cast<double>(expf(at_target - all.highest)) / all.sum;
  const float d_target = static_cast<float>(call.grad_scale * (probability - 1.0));
  Out* d = call.d_logits.Row<Out>(row);
  for_chunks([&](int slot, int64_t chunk) {
    const int n = ChunkSize(chunk, call.cols);
    if (n <= 0) return;
    float v[kChunk];
    if constexpr (kFast) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] = kept[slot][i];
    } else {
      LoadChunk<false>(x + chunk * kChunk, n, v);
    }
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      v[i] = expf(v[i] - all.highest) * scale;
      if (chunk * kChunk + i == target) v[i] = d_target;
      if (target < 0) v[i] = 0;
    }
    StoreChunk<kFast>(d + chunk * kChunk, n, v);
  });
}

constexpr int kThreads = 256;
constexpr int64_t kPiece = int64_t{1} << 16;  // part of the numerics: kernels/operations.h

__global__ void __launch_bounds__(kThreads) SumPieceKernel(const float* x, int64_t elements, double* pieces) {
  __shared__ double shared[kWarp];
  const int64_t first = blockIdx.x * kPiece, end = min(first + kPiece, elements);
  double sum = 0;
  for (int64_t i = first + threadIdx.x; i < end; i += kThreads) sum += static_cast<double>(x[i]);
  sum = RowReduce(sum, shared, AddOp());
  if (threadIdx.x == 0) pieces[blockIdx.x] = sum;
}

__global__ void AddPiecesKernel(const double* pieces, int64_t count, int64_t per_sum, int64_t sums, double* out) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= sums) return;
  double total = 0;
  for (int64_t p = i * per_sum; p < min(count, (i + 1) * per_sum); ++p) total += pieces[p];
  out[i] = total;
}

}  // namespace

void CudaCrossEntropy(CudaStream& stream, const CrossEntropyArgs& args) {
  const int64_t rows = args.logits.rows, cols = args.logits.cols;
  if (rows == 0) return;
  const int cluster = SoftmaxCluster(cols);
  const CrossEntropyCall call = {InOf(args.logits),
                                 args.targets.as<int32_t>(),
                                 args.grad_scale,
                                 args.loss.as<float>(),
                                 OutOf(args.d_logits),
                                 cols,
                                 DivideUp(Chunks(cols), int64_t{cluster} * kSoftmaxThreads)};
  cudaLaunchAttribute shape = {};
  shape.id = cudaLaunchAttributeClusterDimension;
  shape.val.clusterDim.x = cluster;
  shape.val.clusterDim.y = shape.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(rows * cluster);
  config.blockDim = dim3(kSoftmaxThreads);
  config.stream = stream.get();
  config.attrs = &shape;
  config.numAttrs = 1;
  const bool fast = SoftmaxFitsRegisters(cols) && AllowsVectors(args.logits) && AllowsVectors(args.d_logits);
  WithActivation(args.d_logits ? args.d_logits.dtype : DType::kF32, [&](auto out) {
    WithBool(fast, [&](auto is_fast) {
      CUDA_CHECK(cudaLaunchKernelEx(&config, CrossEntropyKernel<decltype(out), is_fast>, call));
    });
  });
}

void CudaSumRows(CudaStream& stream, const ConstView& x, const View& sum) {
  const int64_t pieces = DivideUp(x.cols, kPiece);
  CHECK_LE(pieces * 8, stream.workspace_bytes());
  double* const partial = reinterpret_cast<double*>(stream.workspace());
  if (pieces > 0) {
    SumPieceKernel<<<pieces, kThreads, 0, stream.get()>>>(x.as<float>(), x.cols, partial);
    CUDA_CHECK_LAUNCH();
  }
  CudaAddPieces(stream, partial, pieces, std::max<int64_t>(1, pieces), sum.as<double>(), 1);
}

void CudaAddPieces(CudaStream& stream, const double* pieces, int64_t count, int64_t per_sum, double* sums,
                   int64_t sum_count) {
  constexpr int kAddThreads = 128;
  AddPiecesKernel<<<DivideUp(sum_count, kAddThreads), kAddThreads, 0, stream.get()>>>(pieces, count, per_sum, sum_count,
                                                                                      sums);
  CUDA_CHECK_LAUNCH();
}

}  // namespace shoestring
