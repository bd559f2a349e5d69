// Vector loops of the router: affinities, their gradient, and the balance loss of a range of tokens.
#pragma once

#include "kernels/cpu/lanes_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

inline float MaxOf(const float* x, int64_t cols) {
  F32x16 highest = Broadcast(-__builtin_inff());
  ForLanes(cols, [&](int64_t j, auto n) { highest = Max(highest, Select(FirstN(n), LoadN(x + j, n), highest)); });
  return ReduceMax(highest);
}

inline void SoftmaxRow(const float* logits, float* scores, int64_t cols) {
  const F32x16 highest = Broadcast(MaxOf(logits, cols));
  F32x16 sums = Zero();
  ForLanes(cols, [&](int64_t j, auto n) {
    const F32x16 e = Exp(LoadN(logits + j, n) - highest);
    StoreN(scores + j, e, n);
    sums = sums + Select(FirstN(n), e, Zero());
  });
  const F32x16 total = Broadcast(ReduceAdd(sums));
  ForLanes(cols, [&](int64_t j, auto n) { StoreN(scores + j, LoadN(scores + j, n) / total, n); });
}

inline void ScoreRows(const ScoresLoop& loop, int64_t first_row, int64_t end_row) {
  for (int64_t row = first_row; row < end_row; ++row) {
    const float* logits = loop.logits + row * loop.logits_stride;
    float* scores = loop.scores + row * loop.scores_stride;
    if (loop.softmax) {
      SoftmaxRow(logits, scores, loop.experts);
    } else {
      ForLanes(loop.experts, [&](int64_t j, auto n) { StoreN(scores + j, Sigmoid(LoadN(logits + j, n)), n); });
    }
  }
}

// Through the weights, the choice held fixed. With c the scaling and Z = sum of the chosen scores + 1e-20:
//   renormalised: w_k = c s_k / Z, so ds_k = (c / Z) (dw_k - sum_j dw_j s_j / Z);   otherwise ds_k = c dw_k.
inline void AddWeightGradient(const GateBackwardLoop& loop, int64_t row, float* d_scores) {
  const float* scores = loop.scores + row * loop.scores_stride;
  const int32_t* experts = loop.experts + row * loop.experts_stride;
  const float* d_weights = loop.d_weights + row * loop.d_weights_stride;
  double factor = loop.scaling;
  double shared = 0;
  if (loop.renormalize) {
    double total = 1e-20;
    double product = 0;
    for (int64_t k = 0; k < loop.chosen; ++k) {
      const double score = scores[experts[k]];
      total += score;
      product += static_cast<double>(d_weights[k]) * score;
    }
    factor /= total;
    shared = product / total;
  }
  for (int64_t k = 0; k < loop.chosen; ++k) {
    float& d = d_scores[experts[k]];
    d = static_cast<float>(static_cast<double>(d) + factor * (static_cast<double>(d_weights[k]) - shared));
  }
}

// Through the gate: sigmoid dl = ds s (1 - s);  softmax dl_i = s_i (ds_i - sum_j ds_j s_j).
inline void GateBackwardRows(const GateBackwardLoop& loop, int64_t first_row, int64_t end_row) {
  const F32x16 one = Broadcast(1.0f);
  for (int64_t row = first_row; row < end_row; ++row) {
    const float* s = loop.scores + row * loop.scores_stride;
    float* d = loop.d_logits + row * loop.d_logits_stride;
    if (loop.d_scores != nullptr) {
      const float* given = loop.d_scores + row * loop.d_scores_stride;
      ForLanes(loop.expert_count, [&](int64_t j, auto n) { StoreN(d + j, LoadN(given + j, n), n); });
    } else {
      ForLanes(loop.expert_count, [&](int64_t j, auto n) { StoreN(d + j, Zero(), n); });
    }
    AddWeightGradient(loop, row, d);
    F32x16 products = Zero();
    if (loop.softmax) {
      ForLanes(loop.expert_count,
               [&](int64_t j, auto n) { products = Fma(LoadN(d + j, n), LoadN(s + j, n), products); });
    }
    const F32x16 mean = Broadcast(ReduceAdd(products));
    ForLanes(loop.expert_count, [&](int64_t j, auto n) {
      const F32x16 score = LoadN(s + j, n);
      const F32x16 ds = LoadN(d + j, n);
      StoreN(d + j, loop.softmax ? score * (ds - mean) : ds * score * (one - score), n);
    });
  }
}

// With Z_t = sum_j s_jt and q_t = sum_i f_i s_it / Z_t, a sequence's loss is (loss_scale / S) sum_t q_t, hence
// ds_it = (loss_scale / S) (f_i - q_t) / Z_t.
inline double BalanceRows(const BalanceLoop& loop, int64_t first_row, int64_t end_row) {
  double loss = 0;
  for (int64_t row = first_row; row < end_row; ++row) {
    const float* s = loop.scores + row * loop.scores_stride;
    F32x16 totals = Zero();
    F32x16 products = Zero();
    ForLanes(loop.experts, [&](int64_t j, auto n) {
      const F32x16 score = LoadN(s + j, n);
      totals = totals + score;
      products = Fma(score, LoadN(loop.fractions + j, n), products);
    });
    // A token whose scores all vanished has no share of the loss; dividing would make it NaN.
    const double total = static_cast<double>(ReduceAdd(totals)) + 1e-20;
    const double mean = static_cast<double>(ReduceAdd(products)) / total;
    loss += mean;
    if (loop.d_scores == nullptr) continue;
    float* d = loop.d_scores + row * loop.d_scores_stride;
    const F32x16 factor = Broadcast(static_cast<float>(loop.gradient_scale / total));
    const F32x16 shift = Broadcast(static_cast<float>(mean));
    ForLanes(loop.experts,
             [&](int64_t j, auto n) { StoreN(d + j, (LoadN(loop.fractions + j, n) - shift) * factor, n); });
  }
  return loss;
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
