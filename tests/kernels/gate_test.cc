// Tests of the router on the CPU, and of the definitions of its gradients by finite differences.
#include "tests/kernels/reference/gate.h"

#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

using reference::Matrix;
using GateTest = OpTest;

struct Router {
  int64_t tokens, experts, groups, groups_kept, chosen;
  GateKind kind;
  GroupScore group_score;
  bool renormalize, biased;
  double scaling;
};
constexpr Router kRouters[] = {
    {300, 64, 8, 4, 8, GateKind::kSigmoid, GroupScore::kTop2Sum, true, true, 2.5},
    {1200, 37, 1, 1, 5, GateKind::kSigmoid, GroupScore::kTop2Sum, true, true, 1.0},
    {70, 256, 8, 4, 8, GateKind::kSigmoid, GroupScore::kTop2Sum, true, true, 2.5},
    {65, 64, 1, 1, 6, GateKind::kSoftmax, GroupScore::kMax, false, false, 1.0},
    {65, 30, 5, 2, 4, GateKind::kSoftmax, GroupScore::kMax, true, false, 16.0},
    {9, 6, 6, 3, 3, GateKind::kSigmoid, GroupScore::kTop2Sum, false, true, 1.5},
    {3, 4, 2, 1, 2, GateKind::kSoftmax, GroupScore::kMax, true, true, 1.0},
    {1, 1, 1, 1, 1, GateKind::kSigmoid, GroupScore::kMax, true, false, 1.0},
    {0, 8, 2, 1, 2, GateKind::kSigmoid, GroupScore::kTop2Sum, true, true, 1.0},
};

GateArgs ArgsOf(const Router& r) {
  return {.logits = {},
          .bias = {},
          .kind = r.kind,
          .group_score = r.group_score,
          .groups = r.groups,
          .groups_kept = r.groups_kept,
          .chosen = r.chosen,
          .renormalize = r.renormalize,
          .scaling = r.scaling};
}

std::vector<int64_t> ChosenOf(const TestTensor& experts, int64_t token) {
  std::vector<int64_t> chosen;
  for (int64_t k = 0; k < experts.view().cols; ++k) chosen.push_back(static_cast<int64_t>(experts.at(token, k)));
  return chosen;
}

// Everything that the gate of one router reads and writes.
struct Tensors {
  explicit Tensors(const Router& r)
      : logits(DType::kF32, r.tokens, r.experts, 3),
        bias(DType::kF32, 1, r.experts),
        scores(DType::kF32, r.tokens, r.experts),
        experts(DType::kI32, r.tokens, r.chosen),
        weights(DType::kF32, r.tokens, r.chosen),
        counts(DType::kI64, 1, r.experts) {
    logits.Random(1, 2);
    bias.Random(2, 0.2);
    counts.Fill([](int64_t, int64_t i) { return static_cast<double>(i); });
  }
  TestTensor logits, bias, scores, experts, weights, counts;
};

TEST_P(GateTest, ScoresChoosesAndWeighs) {
  for (const Router& r : kRouters) {
    Tensors t(r);
    GateArgs args = ArgsOf(r);
    args.logits = t.logits;
    if (r.biased) args.bias = t.bias;
    Run({&t.scores, &t.experts, &t.weights, &t.counts}, [&](Backend& backend, Stream& stream) {
      backend.Gate(stream, args, {t.scores, t.experts, t.weights, t.counts});
    });
    ExpectNear(t.scores, reference::Scores(t.logits.matrix(), r.kind), {2e-6, 1e-9}, "scores");
    // The choice is exact, given the scores; so it is compared on the scores that the kernel found.
    const Matrix scores = t.scores.matrix();
    Matrix experts(r.tokens, r.chosen), weights(r.tokens, r.chosen), counts(1, r.experts);
    for (int64_t i = 0; i < r.experts; ++i) counts.at(0, i) = static_cast<double>(i);
    for (int64_t token = 0; token < r.tokens; ++token) {
      std::vector<float> biased;
      for (int64_t i = 0; i < r.experts; ++i) {
        biased.push_back(static_cast<float>(t.scores.at(token, i)) +
                         (r.biased ? static_cast<float>(t.bias.at(0, i)) : 0.0f));
      }
      const std::vector<int64_t> chosen = reference::Choose(args, biased);
      const std::vector<double> chosen_weights = reference::Weights(args, scores, token, chosen);
      for (int64_t k = 0; k < r.chosen; ++k) {
        experts.at(token, k) = static_cast<double>(chosen[k]);
        weights.at(token, k) = chosen_weights[k];
        counts.at(0, chosen[k]) += 1;
      }
    }
    ExpectNear(t.experts, experts, {0, 0}, "experts");
    ExpectNear(t.weights, weights, {2e-7, 0}, "weights");
    ExpectNear(t.counts, counts, {0, 0}, "counts");
  }
}

TEST_P(GateTest, TiesGoToTheLowerGroupAndExpert) {
  TestTensor logits(DType::kF32, 1, 12), scores(DType::kF32, 1, 12), experts(DType::kI32, 1, 3);
  TestTensor weights(DType::kF32, 1, 3), counts(DType::kI64, 1, 12);
  logits.Fill([](int64_t, int64_t) { return 0.25; });
  counts.Fill([](int64_t, int64_t) { return 0.0; });
  const GateArgs args = {.logits = logits, .bias = {}, .groups = 4, .groups_kept = 2, .chosen = 3};
  Run({&experts}, [&](Backend& backend, Stream& stream) {
    backend.Gate(stream, args, {scores, experts, weights, counts});
  });
  for (int64_t k = 0; k < 3; ++k) EXPECT_EQ(experts.at(0, k), k);
}

TEST_P(GateTest, NanStillChoosesDistinctExperts) {
  TestTensor logits(DType::kF32, 1, 8), scores(DType::kF32, 1, 8), experts(DType::kI32, 1, 4);
  TestTensor weights(DType::kF32, 1, 4), counts(DType::kI64, 1, 8);  // logits are left as poison: NaN
  counts.Fill([](int64_t, int64_t) { return 0.0; });
  const GateArgs args = {.logits = logits, .bias = {}, .groups = 4, .groups_kept = 3, .chosen = 4};
  Run({&experts}, [&](Backend& backend, Stream& stream) {
    backend.Gate(stream, args, {scores, experts, weights, counts});
  });
  for (int64_t k = 0; k < 4; ++k) {
    EXPECT_GE(experts.at(0, k), k == 0 ? 0 : experts.at(0, k - 1) + 1);
    EXPECT_LT(experts.at(0, k), 8);
  }
}

TEST_P(GateTest, Backward) {
  for (const Router& r : kRouters) {
    for (bool with_d_scores : {false, true}) {
      Tensors t(r);
      GateArgs args = ArgsOf(r);
      args.logits = t.logits;
      args.bias = t.bias;
      TestTensor d_weights(DType::kF32, r.tokens, r.chosen), d_scores(DType::kF32, r.tokens, r.experts);
      TestTensor d_logits(DType::kF32, r.tokens, r.experts, 5);
      d_weights.Random(3);
      d_scores.Random(4);
      RunOn(*one_, [&](Backend& backend, Stream& stream) {
        backend.Gate(stream, args, {t.scores, t.experts, t.weights, t.counts});
      });
      GateBackwardArgs grads = {.scores = t.scores,
                                .experts = t.experts,
                                .d_weights = d_weights,
                                .d_scores = with_d_scores ? ConstView(d_scores) : ConstView(),
                                .d_logits = d_logits};
      Run({&d_logits}, [&](Backend& backend, Stream& stream) { backend.GateBackward(stream, args, grads); });
      Matrix want(r.tokens, r.experts);
      const Matrix scores = t.scores.matrix();
      for (int64_t token = 0; token < r.tokens; ++token) {
        std::vector<double> dw, ds(r.experts, 0.0);
        for (int64_t k = 0; k < r.chosen; ++k) dw.push_back(d_weights.at(token, k));
        for (int64_t i = 0; with_d_scores && i < r.experts; ++i) ds[i] = d_scores.at(token, i);
        const auto row = reference::GateBackward(args, scores, token, ChosenOf(t.experts, token), dw, ds);
        std::copy(row.begin(), row.end(), &want.values[token * r.experts]);
      }
      ExpectNear(d_logits, want, {1e-5, 2e-6 * r.scaling}, "d_logits");
      if (!with_d_scores) continue;
      grads.d_logits = d_scores;
      Run({&d_scores}, [&](Backend& backend, Stream& stream) { backend.GateBackward(stream, args, grads); });
      ExpectNear(d_scores, d_logits.matrix(), {0, 0}, "d_logits in place");
    }
  }
}

TEST_P(GateTest, SequenceBalance) {
  struct Case {
    int64_t sequences, length, experts, chosen;
  };
  for (const Case& c : {Case{2, 150, 64, 8}, Case{3, 7, 5, 2}, Case{1, 2500, 33, 4}, Case{0, 4, 8, 2}}) {
    const int64_t tokens = c.sequences * c.length;
    TestTensor scores(DType::kF32, tokens, c.experts, 2), loss(DType::kF32, 1, c.sequences);
    TestTensor d_scores(DType::kF32, tokens, c.experts), unused(DType::kF32, tokens, c.experts);
    scores.Random(1);
    scores.Fill([&, logits = scores.matrix()](int64_t t, int64_t i) { return 1 / (1 + std::exp(-logits.at(t, i))); });
    SequenceBalanceArgs args = {.scores = scores,
                                .sequence_length = c.length,
                                .chosen = c.chosen,
                                .loss_scale = 0.75,
                                .loss = loss,
                                .d_scores = d_scores};
    Run({&loss, &d_scores}, [&](Backend& backend, Stream& stream) { backend.SequenceBalance(stream, args); });
    Matrix want(1, c.sequences), want_d(tokens, c.experts);
    const Matrix s = scores.matrix();
    for (int64_t q = 0; q < c.sequences; ++q) {
      const auto f = reference::BalanceFractions(s, q * c.length, c.length, c.chosen);
      want.at(0, q) = 0.75 * reference::BalanceLoss(s, q * c.length, c.length, f);
      for (int64_t t = q * c.length; t < (q + 1) * c.length; ++t) {
        double total = 0, product = 0;
        for (int64_t i = 0; i < c.experts; ++i) total += s.at(t, i);
        for (int64_t i = 0; i < c.experts; ++i) product += f[i] * s.at(t, i);
        for (int64_t i = 0; i < c.experts; ++i) {
          want_d.at(t, i) = 0.75 / static_cast<double>(c.length) * (f[i] * total - product) / (total * total);
        }
      }
    }
    ExpectNear(loss, want, {2e-6, 0}, "loss");
    ExpectNear(d_scores, want_d, {1e-5, 1e-6 / static_cast<double>(c.length)}, "d_scores");
    const std::vector<std::byte> with_gradient = loss.bytes();
    args.d_scores = {};
    Run({&loss, &unused}, [&](Backend& backend, Stream& stream) { backend.SequenceBalance(stream, args); });
    EXPECT_EQ(loss.bytes(), with_gradient);
  }
}

// The routers' own tensors are f32 in both modes, so one dtype says all.
INSTANTIATE_TEST_SUITE_P(Cpu, GateTest, testing::ValuesIn(OpCases({DType::kF32})), OpCaseName);

TEST(GateReference, GradientsMatchFiniteDifferences) {
  for (const Router& r : kRouters) {
    if (r.tokens == 0 || r.tokens > 70) continue;
    const GateArgs args = ArgsOf(r);
    const Matrix logits = TestTensor(DType::kF32, 1, r.experts).Random(5).matrix();
    const Matrix d_scores = TestTensor(DType::kF32, 1, r.experts).Random(6).matrix();
    const Matrix d_weights = TestTensor(DType::kF32, 1, r.chosen).Random(7).matrix();
    const Matrix scores = reference::Scores(logits, r.kind);
    std::vector<int64_t> chosen;  // held fixed; any will do
    for (int64_t k = 0; k < r.chosen; ++k) chosen.push_back(k * (r.experts / r.chosen));
    const auto value = [&](const Matrix& moved) {
      const Matrix s = reference::Scores(moved, r.kind);
      const std::vector<double> weights = reference::Weights(args, s, 0, chosen);
      double sum = reference::Inner(s, d_scores);
      for (int64_t k = 0; k < r.chosen; ++k) sum += weights[k] * d_weights.at(0, k);
      return sum;
    };
    const Matrix numeric = reference::FiniteDifferences(logits, value);
    const auto d_logits = reference::GateBackward(args, scores, 0, chosen, d_weights.values, d_scores.values);
    for (int64_t i = 0; i < r.experts; ++i) EXPECT_NEAR(d_logits[i], numeric.at(0, i), 1e-7);
  }
}

TEST_P(GateTest, BalanceGradientMatchesFiniteDifferences) {
  const int64_t length = 6, count = 5;
  TestTensor scores(DType::kF32, length, count), loss(DType::kF32, 1, 1), d_scores(DType::kF32, length, count);
  scores.Fill([&](int64_t t, int64_t i) { return 0.1 + 0.03 * static_cast<double>((t * 7 + i * 11) % 29); });
  RunOn(*one_, [&](Backend& backend, Stream& stream) {
    backend.SequenceBalance(stream, {.scores = scores,
                                     .sequence_length = length,
                                     .chosen = 2,
                                     .loss_scale = 1,
                                     .loss = loss,
                                     .d_scores = d_scores});
  });
  const auto f = reference::BalanceFractions(scores.matrix(), 0, length, 2);
  const Matrix numeric = reference::FiniteDifferences(
      scores.matrix(), [&](const Matrix& moved) { return reference::BalanceLoss(moved, 0, length, f); });
  ExpectNear(d_scores, numeric, {1e-5, 1e-6}, "d_scores");
}

}  // namespace
}  // namespace shoestring
