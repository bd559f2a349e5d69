// The definition of causal multi-head latent attention and of its gradient: plain loops in float64.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/operations.h"

namespace shoestring::reference {

// Contiguous tensors as in AttentionArgs; first_visible may be empty.
struct AttentionInput {
  AttentionShape shape;
  double scale = 1;
  std::vector<double> q, kv, k_rope;
  std::vector<int32_t> first_visible;
};

struct AttentionOutput {
  std::vector<double> out, lse;
};

struct AttentionGradients {
  std::vector<double> d_q, d_kv, d_k_rope;
};

// Calls fn(head, token, key token, probability) for every visible pair; fills lse.
template <typename Fn>
void ForEachWeight(const AttentionInput& x, std::vector<double>& lse, Fn fn) {
  const AttentionShape& s = x.shape;
  const int64_t dk = s.nope_dim + s.rope_dim, dkv = s.nope_dim + s.value_dim;
  lse.assign(s.tokens * s.heads, 0);
  for (int64_t t = 0; t < s.tokens; ++t) {
    const int64_t start = t / s.sequence_length * s.sequence_length;
    const int64_t first = start + (x.first_visible.empty() ? 0 : x.first_visible[t]);
    for (int64_t h = 0; h < s.heads; ++h) {
      std::vector<double> scores;
      for (int64_t u = first; u <= t; ++u) {
        double dot = 0;
        for (int64_t j = 0; j < s.nope_dim; ++j) {
          dot += x.q[t * s.heads * dk + h * dk + j] * x.kv[u * s.heads * dkv + h * dkv + j];
        }
        for (int64_t j = 0; j < s.rope_dim; ++j) {
          dot += x.q[t * s.heads * dk + h * dk + s.nope_dim + j] * x.k_rope[u * s.rope_dim + j];
        }
        scores.push_back(dot * x.scale);
      }
      double sum = 0;
      for (double score : scores) sum += std::exp(score);
      lse[t * s.heads + h] = std::log(sum);
      for (int64_t u = first; u <= t; ++u) fn(h, t, u, std::exp(scores[u - first]) / sum);
    }
  }
}

inline AttentionOutput Attention(const AttentionInput& x) {
  const AttentionShape& s = x.shape;
  const int64_t dkv = s.nope_dim + s.value_dim;
  AttentionOutput y;
  y.out.assign(s.tokens * s.heads * s.value_dim, 0);
  ForEachWeight(x, y.lse, [&](int64_t h, int64_t t, int64_t u, double p) {
    for (int64_t j = 0; j < s.value_dim; ++j) {
      y.out[(t * s.heads + h) * s.value_dim + j] += p * x.kv[(u * s.heads + h) * dkv + s.nope_dim + j];
    }
  });
  return y;
}

// Gradient of sum(out * d_out).
inline AttentionGradients AttentionBackward(const AttentionInput& x, const std::vector<double>& d_out) {
  const AttentionShape& s = x.shape;
  const int64_t dk = s.nope_dim + s.rope_dim, dkv = s.nope_dim + s.value_dim;
  const AttentionOutput y = Attention(x);
  AttentionGradients g;
  g.d_q.assign(x.q.size(), 0);
  g.d_kv.assign(x.kv.size(), 0);
  g.d_k_rope.assign(x.k_rope.size(), 0);
  std::vector<double> lse;
  ForEachWeight(x, lse, [&](int64_t h, int64_t t, int64_t u, double p) {
    const double* dy = &d_out[(t * s.heads + h) * s.value_dim];
    const double* v = &x.kv[(u * s.heads + h) * dkv + s.nope_dim];
    double dp = 0, delta = 0;
    for (int64_t j = 0; j < s.value_dim; ++j) {
      dp += dy[j] * v[j];
      delta += dy[j] * y.out[(t * s.heads + h) * s.value_dim + j];
      g.d_kv[(u * s.heads + h) * dkv + s.nope_dim + j] += p * dy[j];
    }
    const double ds = p * (dp - delta) * x.scale;
    for (int64_t j = 0; j < s.nope_dim; ++j) {
      g.d_q[(t * s.heads + h) * dk + j] += ds * x.kv[(u * s.heads + h) * dkv + j];
      g.d_kv[(u * s.heads + h) * dkv + j] += ds * x.q[(t * s.heads + h) * dk + j];
    }
    for (int64_t j = 0; j < s.rope_dim; ++j) {
      g.d_q[(t * s.heads + h) * dk + s.nope_dim + j] += ds * x.k_rope[u * s.rope_dim + j];
      g.d_k_rope[u * s.rope_dim + j] += ds * x.q[(t * s.heads + h) * dk + s.nope_dim + j];
    }
  });
  return g;
}

}  // namespace shoestring::reference
