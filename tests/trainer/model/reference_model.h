// The whole model as plain float64 loops, written from the equations of the reports and from nothing of ours: the
// definition that trainer/model is tested against. Parameters are found by name.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "trainer/model/shape.h"

namespace shoestring::model_reference {

// Row-major.
struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(int64_t rows, int64_t cols) : rows(rows), cols(cols), values(rows * cols) {}
  double& at(int64_t r, int64_t c) { return values[r * cols + c]; }
  double at(int64_t r, int64_t c) const { return values[r * cols + c]; }
};
using Tensors = std::map<std::string, Matrix>;

// What is held fixed while a gradient is taken: the choice of experts, and f of the balance loss.
struct Routing {
  std::vector<std::vector<int>> experts;  // [T][K], ascending
  std::vector<std::vector<double>> f;     // [sequence][E]
};

struct Tokens {
  std::vector<std::vector<int>> ids;      // [1 + D][T]
  std::vector<std::vector<int>> targets;  // [1 + D][T], -1: none
  std::vector<int> first_visible;         // [T], or empty
};

inline Matrix Linear(const Matrix& x, const Matrix& w) {  // x w^T
  CHECK_EQ(x.cols, w.cols);
  Matrix y(x.rows, w.rows);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t n = 0; n < w.rows; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < x.cols; ++k) sum += x.at(t, k) * w.at(n, k);
      y.at(t, n) = sum;
    }
  }
  return y;
}

inline Matrix Columns(const Matrix& x, int64_t first, int64_t count) {
  Matrix y(x.rows, count);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t c = 0; c < count; ++c) y.at(t, c) = x.at(t, first + c);
  }
  return y;
}

inline Matrix Rows(const Matrix& x, int64_t first, int64_t count) {
  Matrix y(count, x.cols);
  std::copy_n(x.values.begin() + first * x.cols, count * x.cols, y.values.begin());
  return y;
}

inline Matrix Sum(const Matrix& a, const Matrix& b) {
  Matrix y = a;
  for (size_t i = 0; i < y.values.size(); ++i) y.values[i] += b.values[i];
  return y;
}

constexpr double kLatentEpsilon = 1e-6;  // as the released code has it, whatever the other norms have

inline double Silu(double x) { return x / (1 + std::exp(-x)); }

class Model {
 public:
  Model(const ModelShape& shape, Tensors weights) : shape(shape), w(std::move(weights)) {}

  ModelShape shape;
  Tensors w;

  Matrix Norm(const Matrix& x, const std::string& gain) const { return Norm(x, gain, shape.norm_eps); }

  Matrix Norm(const Matrix& x, const std::string& gain, double epsilon) const {
    Matrix y = x;
    for (int64_t t = 0; t < x.rows; ++t) {
      double squares = 0;
      for (int64_t c = 0; c < x.cols; ++c) squares += x.at(t, c) * x.at(t, c);
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
      for (int64_t c = 0; c < x.cols; ++c) y.at(t, c) *= inverse * w.at(gain).at(0, c);
    }
    return y;
  }

  // Attention with the norm before it, without the residual add.
  Matrix Mla(const std::string& prefix, const Matrix& x, const Tokens& tokens) const {
    const std::string a = prefix + "self_attn.";
    const int64_t q_width = shape.heads * (shape.nope + shape.rope);
    const Matrix h = Linear(Norm(x, prefix + "input_layernorm.weight"), w.at(a + "qkv_a_proj.weight"));
    const int64_t q_cols = shape.q_rank > 0 ? shape.q_rank : q_width;
    Matrix q = Columns(h, 0, q_cols);
    if (shape.q_rank > 0) q = Linear(Norm(q, a + "q_a_layernorm.weight", kLatentEpsilon), w.at(a + "q_b_proj.weight"));
    const Matrix latent = Columns(h, q_cols, shape.kv_rank);
    const Matrix kv = Linear(Norm(latent, a + "kv_a_layernorm.weight", kLatentEpsilon), w.at(a + "kv_b_proj.weight"));
    Matrix key = Columns(h, q_cols + shape.kv_rank, shape.rope);
    Rotate(key, 0);
    for (int64_t i = 0; i < shape.heads; ++i) Rotate(q, i * (shape.nope + shape.rope) + shape.nope);
    return Linear(Core(q, kv, key, tokens), w.at(a + "o_proj.weight"));
  }

  // `name` ends before ".gate_up_proj.weight".
  Matrix Mlp(const std::string& name, const Matrix& x) const {
    return Swiglu(x, w.at(name + ".gate_up_proj.weight"), w.at(name + ".down_proj.weight"));
  }

  // Affinities [T, E].
  Matrix Scores(const std::string& prefix, const Matrix& x) const {
    Matrix s = Linear(x, w.at(prefix + "mlp.gate.weight"));
    for (int64_t t = 0; t < s.rows; ++t) {
      double total = 0;
      for (int64_t e = 0; e < s.cols; ++e) {
        double& v = s.at(t, e);
        v = shape.gate == GateKind::kSigmoid ? 1 / (1 + std::exp(-v)) : std::exp(v);
        total += v;
      }
      if (shape.gate == GateKind::kSigmoid) continue;
      for (int64_t e = 0; e < s.cols; ++e) s.at(t, e) /= total;
    }
    return s;
  }

  Routing Choose(const std::string& prefix, const Matrix& x) const {
    const Matrix scores = Scores(prefix, x);
    const Matrix& bias = w.at(prefix + "mlp.gate.e_score_correction_bias");
    Routing routing;
    const int64_t length = shape.sequence_length;
    const double unit = static_cast<double>(shape.experts) / static_cast<double>(shape.chosen * length);
    for (int64_t t = 0; t < x.rows; ++t) {
      if (t % length == 0) routing.f.emplace_back(shape.experts, 0.0);
      std::vector<double> plain(shape.experts), biased(shape.experts);
      for (int64_t e = 0; e < shape.experts; ++e) {
        plain[e] = scores.at(t, e);
        biased[e] = plain[e] + bias.at(0, e);
      }
      for (const int e : Largest(plain, shape.chosen)) routing.f.back()[e] += unit;
      RestrictToGroups(biased);
      routing.experts.push_back(Largest(biased, shape.chosen));
    }
    return routing;
  }

  // Shared and routed experts without the residual add; *balance += sum over sequences of sum_i f_i P_i.
  Matrix Moe(const std::string& prefix, const Matrix& x, const Routing& routing, double* balance) const {
    const Matrix scores = Scores(prefix, x);
    Matrix y(x.rows, shape.hidden);
    if (shape.shared_ffn > 0) y = Mlp(prefix + "mlp.shared_experts", x);
    const Matrix& gate_up = w.at(prefix + "mlp.experts.gate_up_proj");
    const Matrix& down = w.at(prefix + "mlp.experts.down_proj");
    for (int64_t t = 0; t < x.rows; ++t) {
      double total = 0, all = 0;
      for (const int e : routing.experts[t]) total += scores.at(t, e);
      for (int64_t e = 0; e < shape.experts; ++e) all += scores.at(t, e);
      for (const int e : routing.experts[t]) {
        const double g = shape.routed_scaling * scores.at(t, e) / (shape.renormalize ? total + 1e-20 : 1.0);
        const Matrix out = Swiglu(Rows(x, t, 1), Rows(gate_up, e * 2 * shape.expert_ffn, 2 * shape.expert_ffn),
                                  Rows(down, e * shape.hidden, shape.hidden));
        for (int64_t c = 0; c < shape.hidden; ++c) y.at(t, c) += g * out.at(0, c);
      }
      const std::vector<double>& f = routing.f[t / shape.sequence_length];
      for (int64_t e = 0; e < shape.experts; ++e) {
        *balance += f[e] * scores.at(t, e) / all / static_cast<double>(shape.sequence_length);
      }
    }
    return y;
  }

  // One layer. `routings` holds fixed choices by prefix; those that are not there yet are chosen and kept.
  Matrix Block(const std::string& prefix, bool is_moe, const Matrix& x, const Tokens& tokens,
               std::map<std::string, Routing>& routings, double* balance) const {
    const Matrix u = Sum(x, Mla(prefix, x, tokens));
    const Matrix y = Norm(u, prefix + "post_attention_layernorm.weight");
    if (!is_moe) return Sum(u, Mlp(prefix + "mlp", y));
    if (routings.count(prefix) == 0) routings[prefix] = Choose(prefix, y);
    return Sum(u, Moe(prefix, y, routings.at(prefix), balance));
  }

  Matrix Embed(const std::vector<int>& ids) const {
    Matrix x(static_cast<int64_t>(ids.size()), shape.hidden);
    for (size_t t = 0; t < ids.size(); ++t) {
      for (int64_t c = 0; c < shape.hidden; ++c) x.at(t, c) = w.at("model.embed_tokens.weight").at(ids[t], c);
    }
    return x;
  }

  Matrix Join(const std::string& prefix, const std::vector<int>& ids, const Matrix& hidden) const {
    const Matrix e = Norm(Embed(ids), prefix + "enorm.weight");
    const Matrix h = Norm(hidden, prefix + "hnorm.weight");
    Matrix both(e.rows, 2 * shape.hidden);
    for (int64_t t = 0; t < e.rows; ++t) {
      for (int64_t c = 0; c < shape.hidden; ++c) {
        both.at(t, c) = e.at(t, c);
        both.at(t, shape.hidden + c) = h.at(t, c);
      }
    }
    return Linear(both, w.at(prefix + "eh_proj.weight"));
  }

  Matrix Logits(const std::string& norm, const Matrix& x) const {
    return Linear(Norm(x, norm), w.at("lm_head.weight"));
  }

  // Cross-entropy of each token.
  std::vector<double> Loss(const std::string& norm, const Matrix& x, const std::vector<int>& targets) const {
    const Matrix logits = Logits(norm, x);
    std::vector<double> loss(targets.size());
    for (size_t t = 0; t < targets.size(); ++t) {
      if (targets[t] < 0) continue;
      double sum = 0;
      for (int64_t v = 0; v < shape.vocab; ++v) sum += std::exp(logits.at(t, v));
      loss[t] = std::log(sum) - logits.at(t, targets[t]);
    }
    return loss;
  }

  struct Result {
    Matrix hidden;                          // before the final norm
    std::vector<std::vector<double>> loss;  // [1 + D][T]
    double balance = 0;                     // summed over layers and sequences, not scaled
  };
  Result Run(const Tokens& tokens, std::map<std::string, Routing>& routings) const {
    Result result;
    Matrix x = Embed(tokens.ids[0]);
    for (int64_t l = 0; l < shape.layers; ++l) x = Layer(l, shape.is_moe(l), x, tokens, routings, result);
    result.hidden = x;
    result.loss.push_back(Loss("model.norm.weight", x, tokens.targets[0]));
    for (int64_t k = 1; k <= shape.mtp_depth; ++k) {
      const int64_t layer = shape.layers + k - 1;
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      x = Layer(layer, shape.is_moe(shape.layers - 1), Join(prefix, tokens.ids[k], x), tokens, routings, result);
      result.loss.push_back(Loss(prefix + "shared_head.norm.weight", x, tokens.targets[k]));
    }
    return result;
  }

 private:
  Matrix Layer(int64_t layer, bool is_moe, const Matrix& x, const Tokens& tokens,
               std::map<std::string, Routing>& routings, Result& result) const {
    return Block("model.layers." + std::to_string(layer) + ".", is_moe, x, tokens, routings, &result.balance);
  }

  // Pairs (2j, 2j+1) of `rope` columns from `first`, by the position in the sequence. YaRN as in the released code.
  void Rotate(Matrix& x, int64_t first) const {
    const RopeSettings& r = shape.rope_settings;
    const double dim = static_cast<double>(shape.rope);
    const auto pair_of = [&](double turns) {
      return dim * std::log(r.original_length / (turns * 2 * M_PI)) / (2 * std::log(r.theta));
    };
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t j = 0; j < shape.rope / 2; ++j) {
        double frequency = std::pow(r.theta, -2.0 * static_cast<double>(j) / dim);
        if (r.factor > 1) {
          const double low = std::max(std::floor(pair_of(r.beta_fast)), 0.0);
          double high = std::min(std::ceil(pair_of(r.beta_slow)), dim - 1);
          if (low == high) high += 0.001;
          const double smooth = 1 - std::min(std::max((static_cast<double>(j) - low) / (high - low), 0.0), 1.0);
          frequency = frequency / r.factor * (1 - smooth) + frequency * smooth;
        }
        const double angle = static_cast<double>(t % shape.sequence_length) * frequency;
        double& even = x.at(t, first + 2 * j);
        double& odd = x.at(t, first + 2 * j + 1);
        const double a = even, b = odd;
        even = a * std::cos(angle) - b * std::sin(angle);
        odd = a * std::sin(angle) + b * std::cos(angle);
      }
    }
  }

  Matrix Core(const Matrix& q, const Matrix& kv, const Matrix& key, const Tokens& tokens) const {
    const int64_t nope = shape.nope, rope = shape.rope, value = shape.value;
    double scale = 1 / std::sqrt(static_cast<double>(nope + rope));
    if (shape.rope_settings.factor > 1) {
      const double m = 0.1 * shape.rope_settings.mscale_all_dim * std::log(shape.rope_settings.factor) + 1;
      scale *= m * m;
    }
    Matrix out(q.rows, shape.heads * value);
    for (int64_t t = 0; t < q.rows; ++t) {
      const int64_t begin = t - t % shape.sequence_length;
      const int64_t from = begin + (tokens.first_visible.empty() ? 0 : tokens.first_visible[t]);
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t kv_first = h * (nope + value);
        double total = 0;
        for (int64_t s = from; s <= t; ++s) {
          double score = 0;
          for (int64_t c = 0; c < nope; ++c) score += q.at(t, h * (nope + rope) + c) * kv.at(s, kv_first + c);
          for (int64_t c = 0; c < rope; ++c) score += q.at(t, h * (nope + rope) + nope + c) * key.at(s, c);
          const double p = std::exp(scale * score);
          total += p;
          for (int64_t c = 0; c < value; ++c) out.at(t, h * value + c) += p * kv.at(s, kv_first + nope + c);
        }
        for (int64_t c = 0; c < value; ++c) out.at(t, h * value + c) /= total;
      }
    }
    return out;
  }

  static Matrix Swiglu(const Matrix& x, const Matrix& gate_up, const Matrix& down) {
    const Matrix both = Linear(x, gate_up);
    Matrix hidden(x.rows, both.cols / 2);
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t c = 0; c < hidden.cols; ++c) {
        hidden.at(t, c) = Silu(both.at(t, c)) * both.at(t, hidden.cols + c);
      }
    }
    return Linear(hidden, down);
  }

  // Indices of the `count` largest, ascending; ties: lower index.
  static std::vector<int> Largest(const std::vector<double>& values, int64_t count) {
    std::vector<int> order(values.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
    order.resize(count);
    std::sort(order.begin(), order.end());
    return order;
  }

  // Everything outside the best groups becomes unreachable.
  void RestrictToGroups(std::vector<double>& biased) const {
    const int64_t size = shape.experts / shape.groups;
    std::vector<double> group_scores;
    for (int64_t g = 0; g < shape.groups; ++g) {
      std::vector<double> members(biased.begin() + g * size, biased.begin() + (g + 1) * size);
      std::sort(members.rbegin(), members.rend());
      const bool sum_two = shape.group_score == GroupScore::kTop2Sum && size > 1;
      group_scores.push_back(sum_two ? members[0] + members[1] : members[0]);
    }
    const std::vector<int> kept = Largest(group_scores, shape.groups_kept);
    for (int64_t g = 0; g < shape.groups; ++g) {
      if (std::count(kept.begin(), kept.end(), g) > 0) continue;
      for (int64_t e = g * size; e < (g + 1) * size; ++e) biased[e] = -INFINITY;
    }
  }
};

}  // namespace shoestring::model_reference
