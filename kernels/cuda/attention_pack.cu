// Copies between the layouts of AttentionArgs and those that cuDNN reads and writes.
#include <algorithm>

#include "kernels/cuda/attention_block.cuh"
#include "kernels/cuda/kernel_launch.cuh"

namespace shoestring::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

// Eight bf16: rows and head dimensions are multiples of eight here (CudnnRefusal).
using Eight = uint4;
constexpr int kEight = 8;

__device__ int64_t FirstIndex() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }
__device__ int64_t Step() { return static_cast<int64_t>(gridDim.x) * kThreads; }

__global__ void PackKeysKernel(const AttentionCall call, __nv_bfloat16* keys) {
  const AttentionShape& s = call.shape;
  const int64_t dim = s.nope_dim + s.rope_dim, parts = dim / kEight;
  const auto* kv = static_cast<const __nv_bfloat16*>(call.kv);
  const auto* rope = static_cast<const __nv_bfloat16*>(call.k_rope);
  for (int64_t i = FirstIndex(); i < s.tokens * s.heads * parts; i += Step()) {
    const int64_t token = i / (s.heads * parts), head = i / parts % s.heads, c = i % parts * kEight;
    __nv_bfloat16* to = keys + (token * s.heads + head) * dim + c;
    if (c < s.nope_dim) {
      const __nv_bfloat16* from = kv + token * call.kv_stride + head * (s.nope_dim + s.value_dim) + c;
      *reinterpret_cast<Eight*>(to) = *reinterpret_cast<const Eight*>(from);
    } else {
      // k_rope's rows may lie anywhere.
      for (int j = 0; j < kEight; ++j) to[j] = rope[token * call.k_rope_stride + c - s.nope_dim + j];
    }
  }
}

__global__ void UnpackKeysKernel(const AttentionCall call, const __nv_bfloat16* gradients) {
  const AttentionShape& s = call.shape;
  const int64_t dim = s.nope_dim + s.rope_dim, parts = s.nope_dim / kEight;
  auto* d_kv = static_cast<__nv_bfloat16*>(call.d_kv);
  for (int64_t i = FirstIndex(); i < s.tokens * s.heads * parts; i += Step()) {
    const int64_t token = i / (s.heads * parts), head = i / parts % s.heads, c = i % parts * kEight;
    const __nv_bfloat16* from = gradients + (token * s.heads + head) * dim + c;
    __nv_bfloat16* to = d_kv + token * call.d_kv_stride + head * (s.nope_dim + s.value_dim) + c;
    *reinterpret_cast<Eight*>(to) = *reinterpret_cast<const Eight*>(from);
  }
}

__global__ void SumRopeKernel(const AttentionCall call, const __nv_bfloat16* gradients) {
  const AttentionShape& s = call.shape;
  const int64_t dim = s.nope_dim + s.rope_dim;
  for (int64_t i = FirstIndex(); i < s.tokens * s.rope_dim; i += Step()) {
    const int64_t token = i / s.rope_dim, c = i % s.rope_dim;
    float sum = 0;
    for (int64_t head = 0; head < s.heads; ++head) {
      sum += ToFloat(gradients[(token * s.heads + head) * dim + s.nope_dim + c]);
    }
    Assign(static_cast<__nv_bfloat16*>(call.d_k_rope) + token * call.d_k_rope_stride + c, sum);
  }
}

// `to_stats`: from [T, H] to [sequence, H, S]; else back.
__global__ void StatsKernel(const AttentionCall call, float* stats, bool to_stats) {
  const AttentionShape& s = call.shape;
  for (int64_t i = FirstIndex(); i < s.tokens * s.heads; i += Step()) {
    const int64_t sequence = i / (s.heads * s.sequence_length);
    const int64_t head = i / s.sequence_length % s.heads, position = i % s.sequence_length;
    float* ours = call.log_sum_exp + (sequence * s.sequence_length + position) * call.log_sum_exp_stride + head;
    if (to_stats) {
      stats[i] = *ours;
    } else {
      *ours = stats[i];
    }
  }
}

unsigned Blocks(int64_t items) {
  return static_cast<unsigned>(std::clamp<int64_t>((items + kThreads - 1) / kThreads, 1, kMaxBlocks));
}

}  // namespace

void LaunchPackKeys(const AttentionCall& call, void* keys, cudaStream_t stream) {
  const AttentionShape& s = call.shape;
  const int64_t items = s.tokens * s.heads * (s.nope_dim + s.rope_dim) / kEight;
  LaunchKernel(PackKeysKernel, dim3(Blocks(items)), kThreads, 0, stream, call, static_cast<__nv_bfloat16*>(keys));
}

void LaunchUnpackKeyGradients(const AttentionCall& call, const void* key_gradients, cudaStream_t stream) {
  const AttentionShape& s = call.shape;
  const auto* gradients = static_cast<const __nv_bfloat16*>(key_gradients);
  LaunchKernel(UnpackKeysKernel, dim3(Blocks(s.tokens * s.heads * s.nope_dim / kEight)), kThreads, 0, stream, call,
               gradients);
  LaunchKernel(SumRopeKernel, dim3(Blocks(s.tokens * s.rope_dim)), kThreads, 0, stream, call, gradients);
}

void LaunchPackStats(const AttentionCall& call, float* stats, cudaStream_t stream) {
  LaunchKernel(StatsKernel, dim3(Blocks(call.shape.tokens * call.shape.heads)), kThreads, 0, stream, call, stats, true);
}

void LaunchUnpackStats(const AttentionCall& call, const float* stats, cudaStream_t stream) {
  LaunchKernel(StatsKernel, dim3(Blocks(call.shape.tokens * call.shape.heads)), kThreads, 0, stream, call,
               const_cast<float*>(stats), false);
}

}  // namespace shoestring::cuda
