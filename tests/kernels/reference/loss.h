// The definitions of softmax cross-entropy, its gradient, and one AdamW update.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/operations.h"
#include "tests/kernels/reference/matrix.h"

namespace shoestring::reference {

inline double LogSumExp(const Matrix& logits, int64_t row) {
  double highest = logits.at(row, 0);
  for (int64_t j = 1; j < logits.cols; ++j) highest = std::max(highest, logits.at(row, j));
  double total = 0;
  for (int64_t j = 0; j < logits.cols; ++j) total += std::exp(logits.at(row, j) - highest);
  return highest + std::log(total);
}

inline double CrossEntropy(const Matrix& logits, int64_t row, int64_t target) {
  return target < 0 ? 0 : LogSumExp(logits, row) - logits.at(row, target);
}

// `log_sum_exp` is that of the row.
inline double CrossEntropyGradient(const Matrix& logits, int64_t row, int64_t target, int64_t col, double log_sum_exp) {
  if (target < 0) return 0;
  return std::exp(logits.at(row, col) - log_sum_exp) - (col == target ? 1 : 0);
}

struct AdamWState {
  double w, m, v;
};

inline AdamWState AdamW(const AdamWArgs& args, AdamWState s, double gradient) {
  const double g = gradient * args.grad_scale;
  s.m = args.beta1 * s.m + (1 - args.beta1) * g;
  s.v = args.beta2 * s.v + (1 - args.beta2) * g * g;
  const double m_hat = s.m / (1 - std::pow(args.beta1, static_cast<double>(args.step)));
  const double v_hat = s.v / (1 - std::pow(args.beta2, static_cast<double>(args.step)));
  s.w -= args.learning_rate * (m_hat / (std::sqrt(v_hat) + args.eps) + args.weight_decay * s.w);
  return s;
}

}  // namespace shoestring::reference
