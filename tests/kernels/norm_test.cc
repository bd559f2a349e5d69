// Tests of RMSNorm and its gradients on the CPU, and of their definitions by finite differences.
#include "tests/kernels/reference/norm.h"

#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

using reference::Matrix;
using NormTest = OpTest;

constexpr double kEps = 1e-6;
struct Extent {
  int64_t rows, cols, gap;
};
constexpr Extent kExtents[] = {{0, 8, 0}, {1, 1, 0}, {5, 16, 0}, {7, 100, 9}, {130, 333, 0}, {600, 70, 2}};

TEST_P(NormTest, NormalisesEveryRow) {
  for (const auto& [rows, cols, gap] : kExtents) {
    for (DType gain_type : {DType::kF32, act()}) {
      TestTensor x(act(), rows, cols, gap), gain(gain_type, 1, cols), y(act(), rows, cols, gap);
      TestTensor inverse_rms(DType::kF32, 1, rows);
      x.Random(1, 3);
      gain.Random(2);
      Run({&y, &inverse_rms}, [&](Backend& backend, Stream& stream) {
        backend.RmsNorm(
            stream, {.x = x, .delta = {}, .sum = {}, .gain = gain, .eps = kEps, .y = y, .inverse_rms = inverse_rms});
      });
      const Matrix x_values = x.matrix();
      ExpectNear(y, reference::RmsNorm(x_values, gain.matrix(), kEps), ToleranceOf(act()), "y");
      Matrix inverse(1, rows);
      for (int64_t i = 0; i < rows; ++i) inverse.at(0, i) = reference::InverseRms(x_values, i, kEps);
      ExpectNear(inverse_rms, inverse, ToleranceOf(DType::kF32), "inverse_rms");
    }
  }
}

TEST_P(NormTest, AddsTheResidualFirst) {
  for (const auto& [rows, cols, gap] : kExtents) {
    TestTensor x(act(), rows, cols, gap), delta(act(), rows, cols), gain(act(), 1, cols), y(act(), rows, cols, gap);
    x.Random(1, 3);
    delta.Random(2);
    gain.Random(3);
    Matrix sum(rows, cols);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) sum.at(i, j) = reference::RoundTo(act(), x.at(i, j) + delta.at(i, j));
    }
    Run({&x, &y}, [&](Backend& backend, Stream& stream) {  // the sum is written over x
      backend.RmsNorm(stream, {.x = x, .delta = delta, .sum = x, .gain = gain, .eps = kEps, .y = y, .inverse_rms = {}});
    });
    ExpectNear(x, sum, {act() == DType::kBF16 ? 0x1p-8 : 0x1p-23, 0}, "sum");
    ExpectNear(y, reference::RmsNorm(x.matrix(), gain.matrix(), kEps), ToleranceOf(act()), "y");
  }
}

TEST_P(NormTest, AZeroRowGivesZeros) {
  TestTensor x(act(), 2, 20), gain(act(), 1, 20), y(act(), 2, 20);
  x.Fill([](int64_t, int64_t) { return 0.0; });
  gain.Random(1);
  Run({&y}, [&](Backend& backend, Stream& stream) {
    backend.RmsNorm(stream, {.x = x, .delta = {}, .sum = {}, .gain = gain, .eps = kEps, .y = y, .inverse_rms = {}});
  });
  ExpectNear(y, Matrix(2, 20), {0, 0}, "y");
}

TEST_P(NormTest, BackwardInput) {
  for (const auto& [rows, cols, gap] : kExtents) {
    for (bool with_add : {false, true}) {
      TestTensor x(act(), rows, cols, gap), dy(act(), rows, cols, gap), add(act(), rows, cols),
          dx(act(), rows, cols, 1);
      TestTensor gain(act(), 1, cols), inverse_rms(DType::kF32, 1, rows);
      x.Random(1, 2);
      dy.Random(2);
      add.Random(3);
      gain.Random(4);
      inverse_rms.Fill([&, m = x.matrix()](int64_t, int64_t i) { return reference::InverseRms(m, i, kEps); });
      Run({&dx}, [&](Backend& backend, Stream& stream) {
        backend.RmsNormBackwardInput(stream, {.dy = dy,
                                              .x = x,
                                              .gain = gain,
                                              .inverse_rms = inverse_rms,
                                              .add = with_add ? ConstView(add) : ConstView(),
                                              .dx = dx});
      });
      Matrix want = reference::RmsNormBackwardInput(dy.matrix(), x.matrix(), gain.matrix(), kEps);
      const Matrix residual = add.matrix();
      for (size_t i = 0; with_add && i < want.values.size(); ++i) want.values[i] += residual.values[i];
      ExpectNear(dx, want, ToleranceOf(act(), 1e-5), "dx");
      if (!with_add) continue;
      Run({&add}, [&](Backend& backend, Stream& stream) {  // in place of the residual gradient
        backend.RmsNormBackwardInput(
            stream, {.dy = dy, .x = x, .gain = gain, .inverse_rms = inverse_rms, .add = add, .dx = add});
      });
      ExpectNear(add, dx.matrix(), {0, 0}, "dx in place");
    }
  }
}

TEST_P(NormTest, BackwardWeightAccumulates) {
  for (const auto& [rows, cols, gap] : kExtents) {
    TestTensor x(act(), rows, cols, gap), dy(act(), rows, cols), inverse_rms(DType::kF32, 1, rows);
    TestTensor d_gain(DType::kF32, 1, cols);
    x.Random(1, 2);
    dy.Random(2);
    d_gain.Random(3);
    inverse_rms.Fill([&, m = x.matrix()](int64_t, int64_t i) { return reference::InverseRms(m, i, kEps); });
    Matrix want = reference::RmsNormBackwardWeight(dy.matrix(), x.matrix(), kEps);
    for (int64_t j = 0; j < cols; ++j) want.at(0, j) += d_gain.at(0, j);
    Run({&d_gain}, [&](Backend& backend, Stream& stream) {
      backend.RmsNormBackwardWeight(stream, {.dy = dy, .x = x, .inverse_rms = inverse_rms, .d_gain = d_gain});
    });
    ExpectNear(d_gain, want, {1e-5, 1e-5 * std::sqrt(static_cast<double>(rows))}, "d_gain");
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, NormTest, testing::ValuesIn(OpCases()), OpCaseName);

TEST(NormReference, GradientsMatchFiniteDifferences) {
  const Matrix x = TestTensor(DType::kF32, 3, 7).Random(1).matrix();
  const Matrix gain = TestTensor(DType::kF32, 1, 7).Random(2).matrix();
  const Matrix dy = TestTensor(DType::kF32, 3, 7).Random(3).matrix();
  const Matrix by_x = reference::FiniteDifferences(
      x, [&](const Matrix& moved) { return reference::Inner(dy, reference::RmsNorm(moved, gain, kEps)); });
  const Matrix dx = reference::RmsNormBackwardInput(dy, x, gain, kEps);
  for (size_t i = 0; i < dx.values.size(); ++i) EXPECT_NEAR(dx.values[i], by_x.values[i], 1e-8);
  const Matrix by_gain = reference::FiniteDifferences(
      gain, [&](const Matrix& moved) { return reference::Inner(dy, reference::RmsNorm(x, moved, kEps)); });
  const Matrix d_gain = reference::RmsNormBackwardWeight(dy, x, kEps);
  for (size_t i = 0; i < d_gain.values.size(); ++i) EXPECT_NEAR(d_gain.values[i], by_gain.values[i], 1e-8);
}

}  // namespace
}  // namespace shoestring
