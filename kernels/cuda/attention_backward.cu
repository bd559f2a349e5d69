// Our own attention, backward: one kernel a side, so that nothing is added atomically (Dao et al. 2022, algorithm 4,
// turned into one pass over queries for each block of keys and one over keys for each block of queries).
#include "kernels/cuda/attention_block.cuh"
#include "kernels/cuda/kernel_launch.cuh"

namespace shoestring::cuda {
namespace {

float* DeltaOf(const AttentionCall& call) { return static_cast<float*>(call.workspace); }
float* SharesOf(const AttentionCall& call) {
  return reinterpret_cast<float*>(static_cast<char*>(call.workspace) + OwnWorkspace(call.shape, true).shares_offset());
}

// delta[t, h] = out . d_out: one warp a token and head.
template <typename T>
__global__ void DeltaKernel(const AttentionCall call, float* delta) {
  const AttentionShape& s = call.shape;
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (index >= s.tokens * s.heads) return;
  const int64_t token = index / s.heads, head = index % s.heads;
  const T* out = static_cast<const T*>(call.out) + token * call.out_stride + head * s.value_dim;
  const T* d_out = static_cast<const T*>(call.d_out) + token * call.d_out_stride + head * s.value_dim;
  float sum = 0;
  for (int64_t c = threadIdx.x % 32; c < s.value_dim; c += 32) sum = __fmaf_rn(ToFloat(out[c]), ToFloat(d_out[c]), sum);
#pragma unroll
  for (int step = 1; step < 32; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) delta[index] = sum;
}

// Blocks of queries and keys that meet, and what belongs to the pair.
struct Pair {
  Block q, k, v, d_out;
  int first_query, first_key;
};

// The softmax weight of (row r of the queries, row c of the keys) and the gradient of its scaled score.
struct Weight {
  float weight, d_score;
};
__device__ Weight WeightOf(const AttentionCall& call, const HeadPlace& place, const Pair& p, const float* delta, int r,
                           int c) {
  const int query = p.first_query + r, key = p.first_key + c;
  if (query >= call.shape.sequence_length || key > query || key < FirstVisible(call, place, query)) return {0, 0};
  const int64_t token = place.token + query;
  const float score = __fmul_rn(Dot(p.q, r, p.k, c), call.scale);
  const float weight = expf(score - call.log_sum_exp[token * call.log_sum_exp_stride + place.head]);
  const float d_weight = Dot(p.d_out, r, p.v, c);
  const float d_score = weight * (d_weight - delta[token * call.shape.heads + place.head]);
  return {weight, __fmul_rn(d_score, call.scale)};
}

// to[c] += sum over rows i of factors[i][r] * from[i][c]: a row r of keys collects from queries.
__device__ void AddDown(const Block& factors, const Block& from, const Block& to) {
  const int r = static_cast<int>(threadIdx.x) / kRowLanes, lane = static_cast<int>(threadIdx.x) % kRowLanes;
  for (int c = lane; c < from.cols; c += kRowLanes) {
    float sum = to.at(r, c);
    for (int i = 0; i < kAttentionBlock; ++i) sum = __fmaf_rn(factors.at(i, r), from.at(i, c), sum);
    to.at(r, c) = sum;
  }
}

template <typename T>
__device__ void StoreKeyGradients(const AttentionCall& call, const HeadPlace& place, int key, int r, const Block& d_k,
                                  const Block& d_v, float* shares) {
  const AttentionShape& s = call.shape;
  if (key >= s.sequence_length) return;
  const int lane = static_cast<int>(threadIdx.x) % kRowLanes;
  const int nope = static_cast<int>(s.nope_dim);
  const int64_t token = place.token + key;
  T* d_kv = static_cast<T*>(call.d_kv) + token * call.d_kv_stride + place.head * (s.nope_dim + s.value_dim);
  float* share = shares + (token * s.heads + place.head) * s.rope_dim;
  for (int c = lane; c < d_k.cols; c += kRowLanes) {
    if (c < nope) {
      Assign(d_kv + c, d_k.at(r, c));
    } else {
      share[c - nope] = d_k.at(r, c);
    }
  }
  for (int c = lane; c < d_v.cols; c += kRowLanes) Assign(d_kv + nope + c, d_v.at(r, c));
}

template <typename T>
__global__ void __launch_bounds__(kAttentionThreads)
    KeyGradientKernel(const AttentionCall call, const float* delta, float* shares) {
  const AttentionShape& s = call.shape;
  const int value_dim = static_cast<int>(s.value_dim);
  BlockCarver carver = {DynamicShared<float>()};
  Pair p;
  p.k = carver.Take(KeyDim(s));
  p.v = carver.Take(value_dim);
  const Block d_k = carver.Take(KeyDim(s)), d_v = carver.Take(value_dim);
  p.q = carver.Take(KeyDim(s));
  p.d_out = carver.Take(value_dim);
  const Block weights = carver.Take(kAttentionBlock), d_scores = carver.Take(kAttentionBlock);
  const HeadPlace place = {blockIdx.z * s.sequence_length, static_cast<int>(blockIdx.y)};
  const int r = static_cast<int>(threadIdx.x) / kRowLanes, lane = static_cast<int>(threadIdx.x) % kRowLanes;
  p.first_key = static_cast<int>(blockIdx.x) * kAttentionBlock;
  LoadKeys<T>(p.k, call, place, p.first_key);
  LoadValues<T>(p.v, call, place, p.first_key);
  SetZero(d_k);
  SetZero(d_v);
  for (p.first_query = p.first_key; p.first_query < s.sequence_length; p.first_query += kAttentionBlock) {
    __syncthreads();
    LoadQueries<T>(p.q, call, place, p.first_query);
    LoadOutGradients<T>(p.d_out, call, place, p.first_query);
    __syncthreads();
    for (int c = lane; c < kAttentionBlock; c += kRowLanes) {
      const Weight w = WeightOf(call, place, p, delta, r, c);
      weights.at(r, c) = w.weight;
      d_scores.at(r, c) = w.d_score;
    }
    __syncthreads();
    AddDown(weights, p.d_out, d_v);
    AddDown(d_scores, p.q, d_k);
  }
  StoreKeyGradients<T>(call, place, p.first_key + r, r, d_k, d_v, shares);
}

template <typename T>
__global__ void __launch_bounds__(kAttentionThreads) QueryGradientKernel(const AttentionCall call, const float* delta) {
  const AttentionShape& s = call.shape;
  const int value_dim = static_cast<int>(s.value_dim);
  BlockCarver carver = {DynamicShared<float>()};
  Pair p;
  p.q = carver.Take(KeyDim(s));
  const Block d_q = carver.Take(KeyDim(s));
  p.d_out = carver.Take(value_dim);
  p.k = carver.Take(KeyDim(s));
  p.v = carver.Take(value_dim);
  const Block d_scores = carver.Take(kAttentionBlock);
  const HeadPlace place = {blockIdx.z * s.sequence_length, static_cast<int>(blockIdx.y)};
  const int r = static_cast<int>(threadIdx.x) / kRowLanes, lane = static_cast<int>(threadIdx.x) % kRowLanes;
  p.first_query = static_cast<int>(blockIdx.x) * kAttentionBlock;
  LoadQueries<T>(p.q, call, place, p.first_query);
  LoadOutGradients<T>(p.d_out, call, place, p.first_query);
  SetZero(d_q);
  for (p.first_key = 0; p.first_key <= p.first_query; p.first_key += kAttentionBlock) {
    __syncthreads();
    LoadKeys<T>(p.k, call, place, p.first_key);
    LoadValues<T>(p.v, call, place, p.first_key);
    __syncthreads();
    for (int c = lane; c < kAttentionBlock; c += kRowLanes) {
      d_scores.at(r, c) = WeightOf(call, place, p, delta, r, c).d_score;
    }
    __syncwarp();
    for (int c = lane; c < d_q.cols; c += kRowLanes) {
      float sum = d_q.at(r, c);
      for (int i = 0; i < kAttentionBlock; ++i) sum = __fmaf_rn(d_scores.at(r, i), p.k.at(i, c), sum);
      d_q.at(r, c) = sum;
    }
    __syncwarp();
  }
  const int query = p.first_query + r;
  if (query >= s.sequence_length) return;
  T* to = static_cast<T*>(call.d_q) + (place.token + query) * call.d_q_stride + int64_t{place.head} * d_q.cols;
  for (int c = lane; c < d_q.cols; c += kRowLanes) Assign(to + c, d_q.at(r, c));
}

// d_k_rope[t] = sum over heads, in head order.
template <typename T>
__global__ void SumSharesKernel(const AttentionCall call, const float* shares) {
  const AttentionShape& s = call.shape;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= s.tokens * s.rope_dim) return;
  const int64_t token = index / s.rope_dim, c = index % s.rope_dim;
  float sum = 0;
  for (int64_t head = 0; head < s.heads; ++head) sum += shares[(token * s.heads + head) * s.rope_dim + c];
  Assign(static_cast<T*>(call.d_k_rope) + token * call.d_k_rope_stride + c, sum);
}

unsigned Blocks(int64_t threads, int64_t each) { return static_cast<unsigned>((threads + each - 1) / each); }

template <typename T>
void Launch(const AttentionCall& call, cudaStream_t stream) {
  const AttentionShape& s = call.shape;
  float* const delta = DeltaOf(call);
  float* const shares = SharesOf(call);
  const float* const finished = delta;
  LaunchKernel(DeltaKernel<T>, dim3(Blocks(s.tokens * s.heads * 32, 256)), 256, 0, stream, call, delta);
  const dim3 grid(Blocks(s.sequence_length, kAttentionBlock), static_cast<unsigned>(s.heads),
                  static_cast<unsigned>(s.tokens / s.sequence_length));
  LaunchKernel(KeyGradientKernel<T>, grid, kAttentionThreads, AttentionKeyGradientShared(s), stream, call, finished,
               shares);
  LaunchKernel(QueryGradientKernel<T>, grid, kAttentionThreads, AttentionQueryGradientShared(s), stream, call,
               finished);
  if (s.rope_dim == 0) return;
  LaunchKernel(SumSharesKernel<T>, dim3(Blocks(s.tokens * s.rope_dim, 256)), 256, 0, stream, call, shares);
}

}  // namespace

void LaunchOwnAttentionBackward(const AttentionCall& call, cudaStream_t stream) {
  if (call.shape.tokens == 0 || call.shape.heads == 0) return;
  call.bf16 ? Launch<__nv_bfloat16>(call, stream) : Launch<float>(call, stream);
}

}  // namespace shoestring::cuda
