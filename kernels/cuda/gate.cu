// The router on the GPU: which experts a token goes to, with what weight, and how unevenly the experts are used.
#include "kernels/cuda/cuda_operations.h"
#include "kernels/cuda/device.cuh"

namespace shoestring {
namespace {

constexpr uint32_t kAllLanes = 0xffffffffu;

// --- the best of many -----------------------------------------------------------------------------------------------

// Numbers as integers of the same order. Special ones: not offered (0), NaN, which loses against all numbers, and
// taken.
constexpr uint32_t kExcluded = 0, kNan = 1, kTaken = 0xffffffffu;

__device__ uint32_t KeyOf(float value) {
  if (value != value) return kNan;
  const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 is +0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ float ValueOf(uint32_t key) {
  if (key <= kNan) return -INFINITY;
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// Marks the `wanted` largest of `count` keys as taken, the lower index of equal ones first. By a whole warp.
__device__ void TakeBest(uint32_t* keys, int count, int wanted) {
  const int lane = threadIdx.x % kWarp;
  uint32_t best = 0;
  int at = 0;
  const auto scan = [&] {
    best = 0;
    for (int i = lane; i < count; i += kWarp) {
      const uint32_t key = keys[i];
      if (key != kTaken && key > best) best = key, at = i;
    }
  };
  scan();
  for (int round = 0; round < wanted; ++round) {
    const uint32_t highest = __reduce_max_sync(kAllLanes, best);
    const uint32_t winner = __reduce_min_sync(kAllLanes, best == highest ? static_cast<uint32_t>(at) : kTaken);
    if (winner % kWarp == lane && best == highest) {
      keys[winner] = kTaken;
      scan();
    }
  }
  __syncwarp();
}

// --- gate -----------------------------------------------------------------------------------------------------------

struct GateCall {
  InRows logits;
  const float* bias;
  OutRows scores;
  int32_t* experts;
  int64_t experts_stride;
  float* weights;
  int64_t weights_stride;
  unsigned long long* counts;
  int64_t tokens;
  int expert_count, groups, groups_kept, chosen;
  bool softmax, top2, renormalize;
  double scaling;
  TokenPlan plan;
};

// Calls body(first expert, n) for the chunks of a lane.
template <typename Body>
__device__ __forceinline__ void ForExperts(int experts, Body body) {
  for (int first = threadIdx.x % kWarp * kChunk; first < experts; first += kWarp * kChunk) {
    body(first, min(kChunk, experts - first));
  }
}

// Writes the scores of a token, and their keys with the bias.
template <bool kVector>
__device__ void ScoreToken(const GateCall& call, int64_t token, uint32_t* keys) {
  const float* logits = call.logits.Row<float>(token);
  float* scores = call.scores.Row<float>(token);
  float highest = -INFINITY, sum = 0;
  if (call.softmax) {
    ForExperts(call.expert_count, [&](int first, int n) {
      float v[kChunk];
      LoadChunk<kVector>(logits + first, n, v);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) highest = fmaxf(highest, i < n ? v[i] : -INFINITY);
    });
    highest = WarpReduce(highest, MaxOp());
    ForExperts(call.expert_count, [&](int first, int n) {
      float v[kChunk];
      LoadChunk<kVector>(logits + first, n, v);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (i >= n) continue;
        v[i] = expf(v[i] - highest);
        keys[first + i] = __float_as_uint(v[i]);  // until the sum is known
        sum += v[i];
      }
    });
    sum = WarpReduce(sum, AddOp());
  }
  ForExperts(call.expert_count, [&](int first, int n) {
    float v[kChunk];
    if (!call.softmax) LoadChunk<kVector>(logits + first, n, v);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (i >= n) continue;
      v[i] = call.softmax ? __fdiv_rn(__uint_as_float(keys[first + i]), sum) : Sigmoid<float>(v[i]);
      keys[first + i] = KeyOf(v[i] + (call.bias != nullptr ? call.bias[first + i] : 0.0f));
    }
    StoreChunk<kVector>(scores + first, n, v);
  });
  __syncwarp();
}

// Excludes the experts of all groups but the best.
__device__ void KeepGroups(const GateCall& call, uint32_t* keys, uint32_t* group_keys) {
  const int size = call.expert_count / call.groups, lane = threadIdx.x % kWarp;
  for (int g = lane; g < call.groups; g += kWarp) {
    float best = -INFINITY, second = -INFINITY;
    for (int i = g * size; i < (g + 1) * size; ++i) {
      const float value = ValueOf(keys[i]);
      second = fmaxf(second, fminf(best, value));
      best = fmaxf(best, value);
    }
    group_keys[g] = KeyOf(call.top2 && size > 1 ? best + second : best);
  }
  __syncwarp();
  TakeBest(group_keys, call.groups, call.groups_kept);
  for (int e = lane; e < call.expert_count; e += kWarp) {
    if (group_keys[e / size] != kTaken) keys[e] = kExcluded;
  }
  __syncwarp();
}

template <bool kVector>
__global__ void GateKernel(GateCall call) {
  extern __shared__ uint32_t shared[];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint32_t* counts = shared;
  uint32_t* keys = shared + call.plan.block_words + warp * call.plan.warp_words;
  uint32_t* group_keys = keys + DivideUp(call.expert_count, kChunk) * kChunk;
  int32_t* chosen = reinterpret_cast<int32_t*>(group_keys + call.groups);
  for (int e = threadIdx.x; e < call.expert_count; e += blockDim.x) counts[e] = 0;
  __syncthreads();
  for (int64_t token = int64_t{blockIdx.x} * call.plan.warps + warp; token < call.tokens;
       token += int64_t{gridDim.x} * call.plan.warps) {
    ScoreToken<kVector>(call, token, keys);
    if (call.groups_kept < call.groups) KeepGroups(call, keys, group_keys);
    TakeBest(keys, call.expert_count, call.chosen);
    int found = 0;  // those taken, ascending
    for (int base = 0; base < call.expert_count; base += kWarp) {
      const int e = base + lane;
      const bool taken = e < call.expert_count && keys[e] == kTaken;
      const uint32_t all = __ballot_sync(kAllLanes, taken);
      if (taken) {
        chosen[found + __popc(all & ((1u << lane) - 1))] = e;
        atomicAdd(counts + e, 1u);
      }
      found += __popc(all);
    }
    __syncwarp();
    const float* scores = call.scores.Row<const float>(token);
    double factor = call.scaling;
    if (call.renormalize) {
      double total = 1e-20;
      for (int k = 0; k < call.chosen; ++k) total += static_cast<double>(scores[chosen[k]]);
      factor /= total;
    }
    for (int k = lane; k < call.chosen; k += kWarp) {
      call.experts[token * call.experts_stride + k] = chosen[k];
      call.weights[token * call.weights_stride + k] =
          static_cast<float>(factor * static_cast<double>(scores[chosen[k]]));
    }
    __syncwarp();  // keys are written anew
  }
  __syncthreads();
  for (int e = threadIdx.x; e < call.expert_count; e += blockDim.x) {
    if (counts[e] > 0) atomicAdd(call.counts + e, static_cast<unsigned long long>(counts[e]));
  }
}

// --- gradient of the gate -------------------------------------------------------------------------------------------

struct GateBackwardCall {
  InRows scores;
  const int32_t* experts;
  int64_t experts_stride;
  const float* d_weights;
  int64_t d_weights_stride;
  InRows d_scores;
  OutRows d_logits;
  int64_t tokens;
  int expert_count, chosen;
  bool softmax, renormalize;
  double scaling;
  TokenPlan plan;
};

// Through the weights, the choice held fixed: with c the scaling and Z = sum of the chosen scores + 1e-20,
//   renormalised: w_k = c s_k / Z, so ds_k = (c / Z) (dw_k - sum_j dw_j s_j / Z);   otherwise ds_k = c dw_k.
// Through the gate: sigmoid dl = ds s (1 - s);  softmax dl_i = s_i (ds_i - sum_j ds_j s_j).
template <bool kVector>
__global__ void GateBackwardKernel(GateBackwardCall call) {
  extern __shared__ uint32_t shared[];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int32_t* chosen = reinterpret_cast<int32_t*>(shared + warp * call.plan.warp_words);
  float* d_weights = reinterpret_cast<float*>(chosen + call.chosen);
  const int64_t token = int64_t{blockIdx.x} * call.plan.warps + warp;
  if (token >= call.tokens) return;
  const float* scores = call.scores.Row<float>(token);
  for (int k = lane; k < call.chosen; k += kWarp) {
    chosen[k] = call.experts[token * call.experts_stride + k];
    DEVICE_CHECK(chosen[k] >= 0 && chosen[k] < call.expert_count);
    d_weights[k] = call.d_weights[token * call.d_weights_stride + k];
  }
  __syncwarp();
  double factor = call.scaling, common = 0;
  if (call.renormalize) {
    double total = 1e-20, product = 0;
    for (int k = 0; k < call.chosen; ++k) {
      const double score = scores[chosen[k]];
      total += score;
      product += static_cast<double>(d_weights[k]) * score;
    }
    factor /= total;
    common = product / total;
  }
  const auto load = [&](int first, int n, float(&s)[kChunk], float(&ds)[kChunk]) {
    LoadChunk<kVector>(scores + first, n, s);
    LoadChunk<kVector>(call.d_scores.data != nullptr ? call.d_scores.Row<float>(token) + first : nullptr,
                       call.d_scores.data != nullptr ? n : 0, ds);
    for (int k = 0; k < call.chosen; ++k) {
      const int place = chosen[k] - first;
      if (place < 0 || place >= kChunk) continue;
      const double own = factor * (static_cast<double>(d_weights[k]) - common);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (i == place) ds[i] = static_cast<float>(static_cast<double>(ds[i]) + own);
      }
    }
  };
  float s[kChunk], ds[kChunk], products = 0;
  if (call.softmax) {
    ForExperts(call.expert_count, [&](int first, int n) {
      load(first, n, s, ds);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) products = fmaf(ds[i], s[i], products);
    });
    products = WarpReduce(products, AddOp());
  }
  ForExperts(call.expert_count, [&](int first, int n) {
    load(first, n, s, ds);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) ds[i] = call.softmax ? s[i] * (ds[i] - products) : ds[i] * s[i] * (1.0f - s[i]);
    StoreChunk<kVector>(call.d_logits.Row<float>(token) + first, n, ds);
  });
}

// --- balance loss ---------------------------------------------------------------------------------------------------

struct BalanceCall {
  InRows scores;
  OutRows d_scores;
  int64_t tokens, sequence_length;
  int expert_count, chosen;
  double gradient_scale, unit;
  int32_t* counts;      // [sequences, experts]: tokens that have the expert among their largest scores
  double* token_means;  // [tokens]
  TokenPlan plan;
};

constexpr int kCountBlocks = 32;  // of a sequence

template <bool kVector>
__global__ void CountLargestKernel(BalanceCall call) {
  extern __shared__ uint32_t shared[];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint32_t* counts = shared;
  uint32_t* keys = shared + call.plan.block_words + warp * call.plan.warp_words;
  for (int e = threadIdx.x; e < call.expert_count; e += blockDim.x) counts[e] = 0;
  __syncthreads();
  const int64_t sequence = blockIdx.x, step = int64_t{gridDim.y} * call.plan.warps;
  for (int64_t t = int64_t{blockIdx.y} * call.plan.warps + warp; t < call.sequence_length; t += step) {
    const float* scores = call.scores.Row<float>(sequence * call.sequence_length + t);
    ForExperts(call.expert_count, [&](int first, int n) {
      float v[kChunk];
      LoadChunk<kVector>(scores + first, n, v);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (i < n) keys[first + i] = KeyOf(v[i]);
      }
    });
    __syncwarp();
    TakeBest(keys, call.expert_count, call.chosen);
    for (int e = lane; e < call.expert_count; e += kWarp) {
      if (keys[e] == kTaken) atomicAdd(counts + e, 1u);
    }
    __syncwarp();
  }
  __syncthreads();
  for (int e = threadIdx.x; e < call.expert_count; e += blockDim.x) {
    if (counts[e] > 0) atomicAdd(call.counts + sequence * call.expert_count + e, static_cast<int32_t>(counts[e]));
  }
}

constexpr int kBalanceWarps = 8;

// With Z_t = sum_j s_jt and q_t = sum_i f_i s_it / Z_t, a sequence's loss is (loss_scale / S) sum_t q_t, hence
// ds_it = (loss_scale / S) (f_i - q_t) / Z_t.
template <bool kVector>
__global__ void __launch_bounds__(kWarp* kBalanceWarps) BalanceTokenKernel(BalanceCall call) {
  const int64_t token = int64_t{blockIdx.x} * kBalanceWarps + threadIdx.x / kWarp;
  if (token >= call.tokens) return;
  const float* scores = call.scores.Row<float>(token);
  const int32_t* counts = call.counts + token / call.sequence_length * call.expert_count;
  const auto fraction = [&](int e) { return static_cast<float>(call.unit * static_cast<double>(counts[e])); };
  float totals = 0, products = 0;
  ForExperts(call.expert_count, [&](int first, int n) {
    float s[kChunk];
    LoadChunk<kVector>(scores + first, n, s);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (i >= n) continue;
      totals = totals + s[i];
      products = fmaf(s[i], fraction(first + i), products);
    }
  });
  // A token whose scores all vanished has no share of the loss; dividing would make it NaN.
  const double total = static_cast<double>(WarpReduce(totals, AddOp())) + 1e-20;
  const double mean = static_cast<double>(WarpReduce(products, AddOp())) / total;
  if (threadIdx.x % kWarp == 0) call.token_means[token] = mean;
  if (call.d_scores.data == nullptr) return;
  const float factor = static_cast<float>(call.gradient_scale / total), shift = static_cast<float>(mean);
  ForExperts(call.expert_count, [&](int first, int n) {
    float d[kChunk] = {};
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (i < n) d[i] = (fraction(first + i) - shift) * factor;
    }
    StoreChunk<kVector>(call.d_scores.Row<float>(token) + first, n, d);
  });
}

constexpr int kSumThreads = 256;

__global__ void __launch_bounds__(kSumThreads) SumSequenceKernel(BalanceCall call, float* loss) {
  __shared__ double shared[kWarp];
  const double* means = call.token_means + blockIdx.x * call.sequence_length;
  double sum = 0;
  for (int64_t t = threadIdx.x; t < call.sequence_length; t += kSumThreads) sum += means[t];
  sum = RowReduce(sum, shared, AddOp());
  if (threadIdx.x == 0) loss[blockIdx.x] = static_cast<float>(sum * call.gradient_scale);
}

}  // namespace

void CudaGate(CudaStream& stream, const GateArgs& args, const GateResult& result) {
  const int64_t tokens = args.logits.rows, experts = args.logits.cols;
  if (tokens == 0) return;
  CHECK_LE(experts, kMaxExperts);
  const TokenPlan plan = PlanTokens(experts, args.groups, args.chosen, true);
  CHECK_LE(plan.shared_bytes(), kSharedBytes);
  const GateCall call = {.logits = InOf(args.logits),
                         .bias = PointerOrNull<float>(args.bias),
                         .scores = OutOf(result.scores),
                         .experts = result.experts.as<int32_t>(),
                         .experts_stride = result.experts.stride,
                         .weights = result.weights.as<float>(),
                         .weights_stride = result.weights.stride,
                         .counts = reinterpret_cast<unsigned long long*>(result.counts.as<int64_t>()),
                         .tokens = tokens,
                         .expert_count = static_cast<int>(experts),
                         .groups = static_cast<int>(args.groups),
                         .groups_kept = static_cast<int>(args.groups_kept),
                         .chosen = static_cast<int>(args.chosen),
                         .softmax = args.kind == GateKind::kSoftmax,
                         .top2 = args.group_score == GroupScore::kTop2Sum,
                         .renormalize = args.renormalize,
                         .scaling = args.scaling,
                         .plan = plan};
  // Blocks that stay add their counts once; more of them than the device holds would be of no use.
  const int64_t blocks = std::min<int64_t>(DivideUp(tokens, plan.warps), int64_t{stream.context().sm_count} * 8);
  WithBool(AllowsVectors(args.logits) && AllowsVectors(result.scores), [&](auto vector) {
    GateKernel<vector><<<blocks, plan.warps * kWarp, plan.shared_bytes(), stream.get()>>>(call);
  });
  CUDA_CHECK_LAUNCH();
}

void CudaGateBackward(CudaStream& stream, const GateArgs& args, const GateBackwardArgs& grads) {
  const int64_t tokens = grads.scores.rows, experts = grads.scores.cols;
  if (tokens == 0) return;
  CHECK_LE(experts, kMaxExperts);
  const TokenPlan plan = PlanTokens(0, 0, args.chosen, false);
  CHECK_LE(plan.shared_bytes(), kSharedBytes);
  const GateBackwardCall call = {.scores = InOf(grads.scores),
                                 .experts = grads.experts.as<int32_t>(),
                                 .experts_stride = grads.experts.stride,
                                 .d_weights = grads.d_weights.as<float>(),
                                 .d_weights_stride = grads.d_weights.stride,
                                 .d_scores = InOf(grads.d_scores),
                                 .d_logits = OutOf(grads.d_logits),
                                 .tokens = tokens,
                                 .expert_count = static_cast<int>(experts),
                                 .chosen = static_cast<int>(args.chosen),
                                 .softmax = args.kind == GateKind::kSoftmax,
                                 .renormalize = args.renormalize,
                                 .scaling = args.scaling,
                                 .plan = plan};
  WithBool(AllowsVectors(grads.scores) && AllowsVectors(grads.d_scores) && AllowsVectors(grads.d_logits),
           [&](auto vector) {
             GateBackwardKernel<vector>
                 <<<DivideUp(tokens, plan.warps), plan.warps * kWarp, plan.shared_bytes(), stream.get()>>>(call);
           });
  CUDA_CHECK_LAUNCH();
}

void CudaSequenceBalance(CudaStream& stream, const SequenceBalanceArgs& args) {
  const int64_t tokens = args.scores.rows, experts = args.scores.cols, sequences = args.loss.cols;
  if (tokens == 0) return;
  CHECK_LE(experts, kMaxExperts);
  CHECK_LE(tokens * 8 + sequences * experts * 4, stream.workspace_bytes());
  const TokenPlan plan = PlanTokens(experts, 0, 0, true);
  double* const means = reinterpret_cast<double*>(stream.workspace());
  const double length = static_cast<double>(args.sequence_length);
  const BalanceCall call = {.scores = InOf(args.scores),
                            .d_scores = OutOf(args.d_scores),
                            .tokens = tokens,
                            .sequence_length = args.sequence_length,
                            .expert_count = static_cast<int>(experts),
                            .chosen = static_cast<int>(args.chosen),
                            .gradient_scale = args.loss_scale / length,
                            .unit = static_cast<double>(experts) / (static_cast<double>(args.chosen) * length),
                            .counts = reinterpret_cast<int32_t*>(means + tokens),
                            .token_means = means,
                            .plan = plan};
  CUDA_CHECK(cudaMemsetAsync(call.counts, 0, sequences * experts * 4, stream.get()));
  const int64_t count_blocks = std::min<int64_t>(kCountBlocks, DivideUp(args.sequence_length, plan.warps));
  WithBool(AllowsVectors(args.scores) && AllowsVectors(args.d_scores), [&](auto vector) {
    CountLargestKernel<vector>
        <<<dim3(sequences, count_blocks), plan.warps * kWarp, plan.shared_bytes(), stream.get()>>>(call);
    CUDA_CHECK_LAUNCH();
    BalanceTokenKernel<vector><<<DivideUp(tokens, kBalanceWarps), kWarp * kBalanceWarps, 0, stream.get()>>>(call);
  });
  CUDA_CHECK_LAUNCH();
  SumSequenceKernel<<<sequences, kSumThreads, 0, stream.get()>>>(call, args.loss.as<float>());
  CUDA_CHECK_LAUNCH();
}

}  // namespace shoestring
