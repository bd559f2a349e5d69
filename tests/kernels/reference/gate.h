// The definitions of the router: affinities, choice, weights, their gradients, and the sequence-wise balance loss.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/operations.h"
#include "tests/kernels/reference/matrix.h"

namespace shoestring::reference {

inline Matrix Scores(const Matrix& logits, GateKind kind) {
  Matrix scores(logits.rows, logits.cols);
  for (int64_t t = 0; t < logits.rows; ++t) {
    double total = 0;
    for (int64_t i = 0; i < logits.cols; ++i) total += std::exp(logits.at(t, i));
    for (int64_t i = 0; i < logits.cols; ++i) {
      scores.at(t, i) =
          kind == GateKind::kSoftmax ? std::exp(logits.at(t, i)) / total : 1 / (1 + std::exp(-logits.at(t, i)));
    }
  }
  return scores;
}

// Indices of the `count` largest values, found by sorting all of them; ties to the lower index; ascending.
inline std::vector<int64_t> Largest(const std::vector<float>& values, int64_t count) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

// Choice of one token by biased f32 affinities (comparisons are exact only in the precision that is compared).
inline std::vector<int64_t> Choose(const GateArgs& args, const std::vector<float>& biased) {
  const int64_t size = static_cast<int64_t>(biased.size()) / args.groups;
  std::vector<float> group_values;
  for (int64_t g = 0; g < args.groups; ++g) {
    std::vector<float> members(biased.begin() + g * size, biased.begin() + (g + 1) * size);
    std::sort(members.begin(), members.end(), std::greater<>());
    const bool pair = args.group_score == GroupScore::kTop2Sum && size > 1;
    group_values.push_back(pair ? members[0] + members[1] : members[0]);
  }
  const std::vector<int64_t> kept = Largest(group_values, args.groups_kept);
  std::vector<float> masked(biased.size(), -std::numeric_limits<float>::infinity());
  for (int64_t g : kept) std::copy_n(biased.begin() + g * size, size, masked.begin() + g * size);
  return Largest(masked, args.chosen);
}

// Weights of one token's chosen experts.
inline std::vector<double> Weights(const GateArgs& args, const Matrix& scores, int64_t token,
                                   const std::vector<int64_t>& chosen) {
  double total = 1e-20;
  for (int64_t i : chosen) total += scores.at(token, i);
  std::vector<double> weights;
  for (int64_t i : chosen) weights.push_back(args.scaling * scores.at(token, i) / (args.renormalize ? total : 1.0));
  return weights;
}

// d_logits of one token, by the whole Jacobians of both steps.
inline std::vector<double> GateBackward(const GateArgs& args, const Matrix& scores, int64_t token,
                                        const std::vector<int64_t>& chosen, const std::vector<double>& d_weights,
                                        std::vector<double> d_scores) {
  double total = 1e-20;
  for (int64_t i : chosen) total += scores.at(token, i);
  for (size_t a = 0; a < chosen.size(); ++a) {
    for (size_t b = 0; b < chosen.size(); ++b) {
      const double same = a == b ? 1 : 0;
      const double slope =
          args.renormalize ? same / total - scores.at(token, chosen[a]) / (total * total) : same;  // dw_a / ds_b
      d_scores[chosen[b]] += d_weights[a] * args.scaling * slope;
    }
  }
  const int64_t experts = scores.cols;
  std::vector<double> d_logits(experts, 0.0);
  for (int64_t i = 0; i < experts; ++i) {
    const double s = scores.at(token, i);
    if (args.kind == GateKind::kSigmoid) {
      d_logits[i] = d_scores[i] * s * (1 - s);
    } else {
      for (int64_t j = 0; j < experts; ++j) {
        d_logits[i] += d_scores[j] * scores.at(token, j) * ((i == j ? 1 : 0) - s);  // ds_j / dl_i
      }
    }
  }
  return d_logits;
}

// f of one sequence; scores are f32 values.
inline std::vector<double> BalanceFractions(const Matrix& scores, int64_t first, int64_t length, int64_t chosen) {
  std::vector<double> fractions(scores.cols, 0.0);
  for (int64_t t = first; t < first + length; ++t) {
    std::vector<float> row;
    for (int64_t i = 0; i < scores.cols; ++i) row.push_back(static_cast<float>(scores.at(t, i)));
    for (int64_t i : Largest(row, chosen)) {
      fractions[i] += static_cast<double>(scores.cols) / static_cast<double>(chosen * length);
    }
  }
  return fractions;
}

// sum_i f_i P_i of one sequence.
inline double BalanceLoss(const Matrix& scores, int64_t first, int64_t length, const std::vector<double>& fractions) {
  double loss = 0;
  for (int64_t i = 0; i < scores.cols; ++i) {
    double mean = 0;
    for (int64_t t = first; t < first + length; ++t) {
      double total = 0;
      for (int64_t j = 0; j < scores.cols; ++j) total += scores.at(t, j);
      mean += scores.at(t, i) / total / static_cast<double>(length);
    }
    loss += fractions[i] * mean;
  }
  return loss;
}

}  // namespace shoestring::reference
