// Tests of the ends of the model on the CPU: embedding, cross-entropy, sums.
#include "tests/kernels/reference/loss.h"

#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

using reference::Matrix;
using LossTest = OpTest;

TEST_P(LossTest, EmbeddingLooksUpAndConverts) {
  for (DType table_type : {DType::kF32, DType::kBF16}) {
    for (int64_t tokens : {0, 1, 333}) {
      TestTensor ids(DType::kI32, 1, tokens), table(table_type, 11, 130, 6), x(act(), tokens, 130, 2);
      ids.Fill([](int64_t, int64_t t) { return static_cast<double>(t * 5 % 11); });
      table.Random(1);
      Run({&x}, [&](Backend& backend, Stream& stream) { backend.Embedding(stream, ids, table, x); });
      Matrix want(tokens, 130);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t j = 0; j < 130; ++j) want.at(t, j) = reference::RoundTo(act(), table.at(t * 5 % 11, j));
      }
      ExpectNear(x, want, {0, 0}, "x");
    }
  }
}

TEST_P(LossTest, EmbeddingBackwardAddsInTokenOrder) {
  for (int64_t cols : {1, 31, 200}) {
    TestTensor ids(DType::kI32, 1, 500), dx(act(), 500, cols, 1), d_table(DType::kF32, 9, cols, 7);
    ids.Fill([](int64_t, int64_t t) { return static_cast<double>(t * t % 8); });  // row 8 is never used
    dx.Random(1);
    d_table.Random(2);
    Matrix want = d_table.matrix();
    for (int64_t t = 0; t < 500; ++t) {
      for (int64_t j = 0; j < cols; ++j) {
        double& sum = want.at(t * t % 8, j);
        sum = static_cast<float>(sum) + static_cast<float>(dx.at(t, j));
      }
    }
    Run({&d_table}, [&](Backend& backend, Stream& stream) { backend.EmbeddingBackward(stream, ids, dx, d_table); });
    ExpectNear(d_table, want, {0, 0}, "d_table");  // the order of the sum is part of the definition
  }
}

TEST_P(LossTest, CrossEntropyAndItsGradient) {
  struct Case {
    int64_t rows, cols;
    double scale;
  };
  for (const Case& c : {Case{0, 9, 1}, Case{1, 1, 1}, Case{40, 17, 3}, Case{9, 4099, 5}, Case{70, 1000, 30}}) {
    TestTensor logits(DType::kF32, c.rows, c.cols, 3), targets(DType::kI32, 1, c.rows), loss(DType::kF32, 1, c.rows);
    TestTensor d_logits(act(), c.rows, c.cols, 5);
    logits.Random(1, c.scale);
    targets.Fill([&](int64_t, int64_t t) { return t % 5 == 3 ? -1.0 : static_cast<double>(t * 7919 % c.cols); });
    CrossEntropyArgs args = {
        .logits = logits, .targets = targets, .grad_scale = 0.125, .loss = loss, .d_logits = d_logits};
    const Matrix x = logits.matrix();
    Matrix want(1, c.rows), want_d(c.rows, c.cols);
    for (int64_t t = 0; t < c.rows; ++t) {
      const int64_t target = static_cast<int64_t>(targets.at(0, t));
      want.at(0, t) = reference::CrossEntropy(x, t, target);
      const double log_sum_exp = reference::LogSumExp(x, t);
      for (int64_t j = 0; j < c.cols; ++j) {
        want_d.at(t, j) = 0.125 * reference::CrossEntropyGradient(x, t, target, j, log_sum_exp);
      }
    }
    Run({&loss, &d_logits}, [&](Backend& backend, Stream& stream) { backend.CrossEntropy(stream, args); });
    ExpectNear(loss, want, {2e-6, 2e-6}, "loss");
    ExpectNear(d_logits, want_d, {act() == DType::kBF16 ? 0x1p-8 : 5e-6, 1e-8}, "d_logits");
    if (act() != DType::kF32) continue;
    args.d_logits = logits;
    Run({&loss, &logits}, [&](Backend& backend, Stream& stream) { backend.CrossEntropy(stream, args); });
    ExpectNear(loss, want, {2e-6, 2e-6}, "loss");
    ExpectNear(logits, d_logits.matrix(), {0, 0}, "d_logits in place");
  }
}

TEST_P(LossTest, CrossEntropyWithoutGradient) {
  TestTensor logits(DType::kF32, 2, 5), targets(DType::kI32, 1, 2), loss(DType::kF32, 1, 2);
  logits.Fill([](int64_t, int64_t j) { return j == 2 ? 200.0 : -200.0; });
  targets.Fill([](int64_t, int64_t t) { return t == 0 ? 2.0 : 0.0; });
  Run({&loss}, [&](Backend& backend, Stream& stream) {
    backend.CrossEntropy(stream, {.logits = logits, .targets = targets, .grad_scale = 1, .loss = loss, .d_logits = {}});
  });
  EXPECT_EQ(loss.at(0, 0), 0);
  EXPECT_EQ(loss.at(0, 1), 400);
}

TEST_P(LossTest, NanLogitsGiveANanLoss) {
  TestTensor logits(DType::kF32, 1, 40), targets(DType::kI32, 1, 1), loss(DType::kF32, 1, 1);
  logits.Random(1);
  logits.set(0, 7, std::nan(""));
  targets.set(0, 0, 3);
  loss.set(0, 0, 0);
  Run({&loss}, [&](Backend& backend, Stream& stream) {
    backend.CrossEntropy(stream, {.logits = logits, .targets = targets, .grad_scale = 1, .loss = loss, .d_logits = {}});
  });
  EXPECT_TRUE(std::isnan(loss.at(0, 0)));
}

TEST_P(LossTest, SumRowsIsExactInDouble) {
  for (int64_t n : {0, 1, 1000, 200001}) {
    TestTensor x(DType::kF32, 1, n), sum(DType::kF64, 1, 1);
    x.Random(1);
    Run({&sum}, [&](Backend& backend, Stream& stream) { backend.SumRows(stream, x, sum); });
    long double want = 0;
    for (int64_t i = 0; i < n; ++i) want += x.at(0, i);
    EXPECT_NEAR(sum.at(0, 0), static_cast<double>(want), 1e-10);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, LossTest, testing::ValuesIn(OpCases()), OpCaseName);

using LossDeathTest = LossTest;
TEST_P(LossDeathTest, IdsAndTargetsOutsideTheVocabularyAbort) {
  TestTensor ids(DType::kI32, 1, 1), table(DType::kF32, 3, 4), x(DType::kF32, 1, 4), loss(DType::kF32, 1, 1);
  table.Random(1);
  x.Random(2);
  ids.set(0, 0, 3);
  EXPECT_DEATH(RunOn(*one_, [&](Backend& b, Stream& s) { b.Embedding(s, ids, table, x); }), "3 vs. 3");
  ids.set(0, 0, 4);
  EXPECT_DEATH(
      RunOn(*one_, [&](Backend& b,
                       Stream& s) { b.CrossEntropy(s, {.logits = x, .targets = ids, .loss = loss, .d_logits = {}}); }),
      "4 vs. 4");
}
INSTANTIATE_TEST_SUITE_P(Cpu, LossDeathTest, testing::Values(OpCase{Isa::kPortable, DType::kF32}), OpCaseName);

TEST(LossReference, GradientMatchesFiniteDifferences) {
  const Matrix logits = TestTensor(DType::kF32, 1, 9).Random(1).matrix();
  const Matrix numeric =
      reference::FiniteDifferences(logits, [](const Matrix& moved) { return reference::CrossEntropy(moved, 0, 4); });
  for (int64_t j = 0; j < 9; ++j) {
    EXPECT_NEAR(reference::CrossEntropyGradient(logits, 0, 4, j, reference::LogSumExp(logits, 0)), numeric.at(0, j),
                1e-9);
  }
}

}  // namespace
}  // namespace shoestring
