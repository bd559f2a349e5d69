// Our own attention, forward: online softmax over blocks of keys (Dao et al. 2022, FlashAttention, algorithm 1).
#include "kernels/cuda/attention_block.cuh"
#include "kernels/cuda/kernel_launch.cuh"

namespace shoestring::cuda {
namespace {

// What a row has seen so far.
struct RowState {
  float largest = -INFINITY;  // score
  float sum = 0;              // of exp(score - largest)
};

// Weights of one block of keys for one row, into `weights`; scales what the row had.
__device__ void WeighKeys(const AttentionCall& call, const HeadPlace& place, const Block& q, const Block& k, int query,
                          int first_key, const Block& weights, RowState& row, float& kept) {
  const int r = static_cast<int>(threadIdx.x) / kRowLanes, lane = static_cast<int>(threadIdx.x) % kRowLanes;
  const int first_visible =
      query < call.shape.sequence_length ? FirstVisible(call, place, query) : 0;  // rows past the end are not stored
  float scores[kAttentionBlock / kRowLanes];
  float largest = row.largest;
#pragma unroll
  for (int i = 0; i < kAttentionBlock / kRowLanes; ++i) {
    const int c = lane + i * kRowLanes, key = first_key + c;
    const bool visible = key >= first_visible && key <= query;
    scores[i] = visible ? __fmul_rn(Dot(q, r, k, c), call.scale) : -INFINITY;
    largest = fmaxf(largest, scores[i]);
  }
  largest = MaxRow(largest);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kAttentionBlock / kRowLanes; ++i) {
    const float weight = scores[i] == -INFINITY ? 0.0f : expf(scores[i] - largest);
    weights.at(r, lane + i * kRowLanes) = weight;
    sum += weight;
  }
  kept = row.largest == -INFINITY ? 0.0f : expf(row.largest - largest);
  row.sum = row.sum * kept + SumRow(sum);
  row.largest = largest;
}

template <typename T>
__global__ void __launch_bounds__(kAttentionThreads) ForwardKernel(const AttentionCall call) {
  const AttentionShape& s = call.shape;
  const int value_dim = static_cast<int>(s.value_dim);
  BlockCarver carver = {DynamicShared<float>()};
  const Block q = carver.Take(KeyDim(s)), k = carver.Take(KeyDim(s));
  const Block v = carver.Take(value_dim), out = carver.Take(value_dim);
  const Block weights = carver.Take(kAttentionBlock);
  const HeadPlace place = {blockIdx.z * s.sequence_length, static_cast<int>(blockIdx.y)};
  const int first_query = static_cast<int>(blockIdx.x) * kAttentionBlock;
  const int r = static_cast<int>(threadIdx.x) / kRowLanes, lane = static_cast<int>(threadIdx.x) % kRowLanes;
  const int query = first_query + r;
  LoadQueries<T>(q, call, place, first_query);
  SetZero(out);
  RowState row;
  for (int first_key = 0; first_key <= first_query; first_key += kAttentionBlock) {
    __syncthreads();
    LoadKeys<T>(k, call, place, first_key);
    LoadValues<T>(v, call, place, first_key);
    __syncthreads();
    float kept = 0;
    WeighKeys(call, place, q, k, query, first_key, weights, row, kept);
    __syncwarp();
    for (int c = lane; c < value_dim; c += kRowLanes) {
      float sum = out.at(r, c) * kept;
      for (int i = 0; i < kAttentionBlock; ++i) sum = __fmaf_rn(weights.at(r, i), v.at(i, c), sum);
      out.at(r, c) = sum;
    }
    __syncwarp();
  }
  if (query >= s.sequence_length) return;
  const int64_t token = place.token + query;
  T* to = static_cast<T*>(call.out) + token * call.out_stride + int64_t{place.head} * value_dim;
  for (int c = lane; c < value_dim; c += kRowLanes) Assign(to + c, out.at(r, c) / row.sum);
  if (lane == 0) call.log_sum_exp[token * call.log_sum_exp_stride + place.head] = row.largest + logf(row.sum);
}

template <typename T>
void Launch(const AttentionCall& call, cudaStream_t stream) {
  const AttentionShape& s = call.shape;
  const dim3 grid(static_cast<unsigned>((s.sequence_length + kAttentionBlock - 1) / kAttentionBlock),
                  static_cast<unsigned>(s.heads), static_cast<unsigned>(s.tokens / s.sequence_length));
  LaunchKernel(ForwardKernel<T>, grid, kAttentionThreads, AttentionForwardShared(s), stream, call);
}

}  // namespace

void LaunchOwnAttention(const AttentionCall& call, cudaStream_t stream) {
  if (call.shape.tokens == 0 || call.shape.heads == 0) return;
  call.bf16 ? Launch<__nv_bfloat16>(call, stream) : Launch<float>(call, stream);
}

}  // namespace shoestring::cuda
