// The router on the CPU: which experts a token goes to, with what weight, and how unevenly the experts are used.
#include <algorithm>
#include <array>
#include <limits>

#include "kernels/cpu/cpu_operations.h"

namespace shoestring {
namespace {

// The `wanted` best of a sequence of candidates offered in ascending order of id; an equal later one never displaces an
// earlier one. Always keeps exactly `wanted` of enough candidates, even when values are NaN. Storage is the caller's.
class TopK {
 public:
  TopK(int32_t* ids, float* values, int64_t wanted) : ids_(ids), values_(values), wanted_(wanted) {}

  void Offer(int32_t id, float value) {
    if (kept_ == wanted_) {
      if (!(value > values_[wanted_ - 1])) return;
      --kept_;
    }
    int64_t at = kept_++;
    for (; at > 0 && value > values_[at - 1]; --at) {
      values_[at] = values_[at - 1];
      ids_[at] = ids_[at - 1];
    }
    values_[at] = value;
    ids_[at] = id;
  }

 private:
  int32_t* ids_;
  float* values_;
  int64_t wanted_;
  int64_t kept_ = 0;
};

// What choosing for one token needs; on the stack of the thread that does it.
struct Choice {
  std::array<int32_t, kMaxExperts> groups;
  std::array<float, kMaxExperts> values;
};

float GroupValue(const float* scores, const float* bias, int64_t first, int64_t size, GroupScore kind) {
  float best = -std::numeric_limits<float>::infinity();
  float second = best;
  for (int64_t i = first; i < first + size; ++i) {
    const float value = scores[i] + (bias != nullptr ? bias[i] : 0.0f);
    second = std::max(second, std::min(best, value));
    best = std::max(best, value);
  }
  return kind == GroupScore::kMax || size == 1 ? best : best + second;
}

// Writes the chosen experts of one token, ascending.
void Choose(const GateArgs& args, const float* scores, const float* bias, Choice& choice, int32_t* experts) {
  const int64_t group_size = args.logits.cols / args.groups;
  int64_t kept = args.groups;
  if (args.groups_kept < args.groups) {
    kept = args.groups_kept;
    TopK best(choice.groups.data(), choice.values.data(), kept);
    for (int64_t g = 0; g < args.groups; ++g) {
      best.Offer(static_cast<int32_t>(g), GroupValue(scores, bias, g * group_size, group_size, args.group_score));
    }
    std::sort(choice.groups.data(), choice.groups.data() + kept);  // so that ties go to the lower expert
  }
  TopK best(experts, choice.values.data(), args.chosen);
  for (int64_t k = 0; k < kept; ++k) {
    const int64_t group = kept == args.groups ? k : choice.groups[k];
    for (int64_t i = group * group_size; i < (group + 1) * group_size; ++i) {
      best.Offer(static_cast<int32_t>(i), scores[i] + (bias != nullptr ? bias[i] : 0.0f));
    }
  }
  std::sort(experts, experts + args.chosen);
}

void Weigh(const GateArgs& args, const float* scores, const int32_t* experts, float* weights) {
  double factor = args.scaling;
  if (args.renormalize) {
    double total = 1e-20;
    for (int64_t k = 0; k < args.chosen; ++k) total += static_cast<double>(scores[experts[k]]);
    factor /= total;
  }
  for (int64_t k = 0; k < args.chosen; ++k) {
    weights[k] = static_cast<float>(factor * static_cast<double>(scores[experts[k]]));
  }
}

// Adds to counts, for every expert, in how many of the tokens it is among the `chosen` largest scores.
void CountLargest(const SequenceBalanceArgs& args, int64_t first, int64_t end, int64_t* counts) {
  Choice choice;
  for (int64_t token = first; token < end; ++token) {
    const float* scores = args.scores.as<float>(token);
    TopK best(choice.groups.data(), choice.values.data(), args.chosen);
    for (int64_t i = 0; i < args.scores.cols; ++i) best.Offer(static_cast<int32_t>(i), scores[i]);
    for (int64_t k = 0; k < args.chosen; ++k) ++counts[choice.groups[k]];
  }
}

// f of one sequence, into scratch.fractions. Counts are integers: the threads' shares may be added in any order.
void BalanceFractions(const CpuContext& cpu, const SequenceBalanceArgs& args, int64_t first_token) {
  const int64_t experts = args.scores.cols;
  const int64_t tokens = args.sequence_length;
  for (int thread = 0; thread < cpu.pool.threads(); ++thread) {
    std::fill_n(cpu.scratch.counts.begin() + thread * kMaxExperts, experts, 0);
  }
  const int64_t grain = std::max<int64_t>(1, kGrainElements / experts / 4);
  cpu.pool.ParallelRanges(tokens, grain, [&](int64_t begin, int64_t end, int worker) {
    CountLargest(args, first_token + begin, first_token + end, &cpu.scratch.counts[worker * kMaxExperts]);
  });
  const double unit = static_cast<double>(experts) / (static_cast<double>(args.chosen) * static_cast<double>(tokens));
  for (int64_t i = 0; i < experts; ++i) {
    int64_t count = 0;
    for (int thread = 0; thread < cpu.pool.threads(); ++thread) count += cpu.scratch.counts[thread * kMaxExperts + i];
    cpu.scratch.fractions[i] = static_cast<float>(unit * static_cast<double>(count));
  }
}

// Loss and gradient of one sequence; needs its fractions. Tokens are summed in blocks whose size depends on S only.
double BalanceSequence(const CpuContext& cpu, const SequenceBalanceArgs& args, int64_t first_token) {
  const int64_t tokens = args.sequence_length;
  const bool gradient = static_cast<bool>(args.d_scores);
  const BalanceLoop loop = {.scores = args.scores.as<float>(),
                            .scores_stride = args.scores.stride,
                            .fractions = cpu.scratch.fractions.data(),
                            .d_scores = gradient ? args.d_scores.as<float>() : nullptr,
                            .d_scores_stride = args.d_scores.stride,
                            .experts = args.scores.cols,
                            .gradient_scale = args.loss_scale / static_cast<double>(tokens)};
  const int64_t block = std::max<int64_t>(64, (tokens + kCpuPartialSums - 1) / kCpuPartialSums);
  const int64_t blocks = (tokens + block - 1) / block;
  cpu.pool.ParallelFor(blocks, [&](int64_t b, int) {
    const int64_t begin = first_token + b * block;
    const int64_t end = std::min(begin + block, first_token + tokens);
    cpu.scratch.partial_sums[b] = cpu.ops.balance(loop, begin, end);
  });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += cpu.scratch.partial_sums[b];
  return total * loop.gradient_scale;
}

}  // namespace

void CpuGate(const CpuContext& cpu, const GateArgs& args, const GateResult& result) {
  const int64_t experts = args.logits.cols;
  CHECK_LE(experts, kMaxExperts);
  const ScoresLoop loop = {.logits = args.logits.as<float>(),
                           .logits_stride = args.logits.stride,
                           .scores = result.scores.as<float>(),
                           .scores_stride = result.scores.stride,
                           .experts = experts,
                           .softmax = args.kind == GateKind::kSoftmax};
  const float* bias = DataOrNull<float>(args.bias);
  const int64_t grain = std::max<int64_t>(1, kGrainElements / experts / 4);
  cpu.pool.ParallelRanges(args.logits.rows, grain, [&](int64_t begin, int64_t end, int) {
    cpu.ops.scores(loop, begin, end);
    Choice choice;
    for (int64_t token = begin; token < end; ++token) {
      const float* scores = result.scores.as<float>(token);
      int32_t* chosen = result.experts.as<int32_t>(token);
      Choose(args, scores, bias, choice, chosen);
      Weigh(args, scores, chosen, result.weights.as<float>(token));
    }
  });
  int64_t* counts = result.counts.as<int64_t>();
  for (int64_t token = 0; token < args.logits.rows; ++token) {
    const int32_t* chosen = result.experts.as<int32_t>(token);
    for (int64_t k = 0; k < args.chosen; ++k) ++counts[chosen[k]];
  }
}

void CpuGateBackward(const CpuContext& cpu, const GateArgs& args, const GateBackwardArgs& grads) {
  const GateBackwardLoop loop = {.scores = grads.scores.as<float>(),
                                 .scores_stride = grads.scores.stride,
                                 .experts = grads.experts.as<int32_t>(),
                                 .experts_stride = grads.experts.stride,
                                 .d_weights = grads.d_weights.as<float>(),
                                 .d_weights_stride = grads.d_weights.stride,
                                 .d_scores = DataOrNull<float>(grads.d_scores),
                                 .d_scores_stride = grads.d_scores.stride,
                                 .d_logits = grads.d_logits.as<float>(),
                                 .d_logits_stride = grads.d_logits.stride,
                                 .expert_count = grads.scores.cols,
                                 .chosen = args.chosen,
                                 .softmax = args.kind == GateKind::kSoftmax,
                                 .renormalize = args.renormalize,
                                 .scaling = args.scaling};
  for (int64_t token = 0; token < grads.experts.rows; ++token) {
    const int32_t* chosen = grads.experts.as<int32_t>(token);
    for (int64_t k = 0; k < args.chosen; ++k) {
      CHECK_GE(chosen[k], 0);
      CHECK_LT(chosen[k], grads.scores.cols);
    }
  }
  ForRowRanges(cpu, grads.scores.rows, grads.scores.cols,
               [&](int64_t begin, int64_t end) { cpu.ops.gate_backward(loop, begin, end); });
}

void CpuSequenceBalance(const CpuContext& cpu, const SequenceBalanceArgs& args) {
  CHECK_LE(args.scores.cols, kMaxExperts);
  float* loss = args.loss.as<float>();
  for (int64_t sequence = 0; sequence < args.loss.cols; ++sequence) {
    const int64_t first_token = sequence * args.sequence_length;
    BalanceFractions(cpu, args, first_token);
    loss[sequence] = static_cast<float>(BalanceSequence(cpu, args, first_token));
  }
}

}  // namespace shoestring
