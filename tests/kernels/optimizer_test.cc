// Tests of AdamW, the running mean of weights and sums of squares on the CPU.
#include "tests/kernels/reference/loss.h"
#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

using reference::Matrix;
using OptimizerTest = OpTest;

TEST_P(OptimizerTest, AdamWOverSeveralSteps) {
  for (int64_t count : {0, 1, 47, 50003}) {
    TestTensor w(DType::kF32, 1, count), g(DType::kF32, 1, count), m(act(), 1, count), v(act(), 1, count);
    TestTensor compute(DType::kBF16, 1, count);
    w.Random(1);
    const auto zero = [](int64_t, int64_t) { return 0.0; };
    m.Fill(zero);
    v.Fill(zero);
    AdamWArgs args = {.master = w,
                      .grad = g,
                      .m = m,
                      .v = v,
                      .compute = compute,
                      .learning_rate = 0.01,
                      .weight_decay = 0.1,
                      .grad_scale = 0.5};
    for (args.step = 1; args.step <= 4; ++args.step) {
      g.Random(10 + args.step);
      // From the state that the kernel left: what is tested is one step, not how steps amplify a rounding.
      Matrix want_w(1, count), want_m(1, count), want_v(1, count);
      for (int64_t i = 0; i < count; ++i) {
        const auto next = reference::AdamW(args, {w.at(0, i), m.at(0, i), v.at(0, i)}, g.at(0, i));
        want_w.at(0, i) = next.w;
        want_m.at(0, i) = next.m;
        want_v.at(0, i) = next.v;
      }
      Run({&w, &m, &v, &compute}, [&](Backend& backend, Stream& stream) { backend.AdamW(stream, args); });
      ExpectNear(w, want_w, {2e-7, 2e-8}, "master");
      ExpectNear(m, want_m, {ToleranceOf(act(), 1e-6).relative, 1e-7}, "m");
      ExpectNear(v, want_v, {ToleranceOf(act(), 1e-6).relative, 1e-7}, "v");
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(compute.at(0, i), reference::RoundTo(DType::kBF16, w.at(0, i)));
      }
    }
  }
}

TEST_P(OptimizerTest, AdamWWithoutACopyOrAGradientOnlyDecays) {
  TestTensor w(DType::kF32, 3, 7), g(DType::kF32, 3, 7), m(act(), 3, 7), v(act(), 3, 7);
  const auto zero = [](int64_t, int64_t) { return 0.0; };
  w.Random(1);
  g.Fill(zero);
  m.Fill(zero);
  v.Fill(zero);
  const Matrix before = w.matrix();
  const AdamWArgs args = {
      .master = w, .grad = g, .m = m, .v = v, .compute = {}, .learning_rate = 0.5, .weight_decay = 0.5};
  Run({&w, &m, &v}, [&](Backend& backend, Stream& stream) { backend.AdamW(stream, args); });
  Matrix want = before;
  for (double& x : want.values) x *= 0.75;
  ExpectNear(w, want, {2e-7, 0}, "master");
}

TEST_P(OptimizerTest, EmaMovesTowardsTheWeights) {
  for (int64_t rows : {0, 1, 200}) {
    for (int64_t gap : {0, 5}) {
      TestTensor w(DType::kF32, rows, 301, gap), ema(DType::kF32, rows, 301);
      w.Random(1);
      ema.Random(2);
      Matrix want = ema.matrix();
      const Matrix weights = w.matrix();
      for (size_t i = 0; i < want.values.size(); ++i) {
        want.values[i] = 0.999 * want.values[i] + 0.001 * weights.values[i];
      }
      Run({&ema}, [&](Backend& backend, Stream& stream) { backend.Ema(stream, w, 0.999, ema); });
      ExpectNear(ema, want, {2e-7, 1e-7}, "ema");
    }
  }
}

TEST_P(OptimizerTest, SquaredNormByBlocks) {
  for (int64_t count : {int64_t{0}, int64_t{1}, int64_t{70003}, kNormBlockElements, 2 * kNormBlockElements + 77}) {
    TestTensor x(DType::kF32, 1, count), sums(DType::kF64, 1, NormBlocks(count));
    x.Random(1);
    Run({&sums}, [&](Backend& backend, Stream& stream) { backend.SquaredNorm(stream, x, sums); });
    for (int64_t b = 0; b < NormBlocks(count); ++b) {
      double want = 0;
      for (int64_t i = b * kNormBlockElements; i < std::min(count, (b + 1) * kNormBlockElements); ++i) {
        want += x.at(0, i) * x.at(0, i);
      }
      EXPECT_NEAR(sums.at(0, b), want, 1e-12 * want);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OptimizerTest, testing::ValuesIn(OpCases()), OpCaseName);

}  // namespace
}  // namespace shoestring
