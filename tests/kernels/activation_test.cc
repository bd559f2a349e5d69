// Tests of SwiGLU and rotary positions on the CPU, and of SwiGLU's definition by finite differences.
#include "tests/kernels/reference/activation.h"

#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

using reference::Matrix;
using ActivationTest = OpTest;

struct Extent {
  int64_t rows, width, gap;
};
constexpr Extent kExtents[] = {{0, 8, 0}, {1, 1, 0}, {5, 16, 4}, {7, 45, 0}, {150, 301, 0}};

Matrix Ones(int64_t cols) {
  Matrix ones(1, cols);
  std::fill(ones.values.begin(), ones.values.end(), 1.0);
  return ones;
}

TEST_P(ActivationTest, SwiGluAndItsGradient) {
  for (const auto& [rows, width, gap] : kExtents) {
    for (bool weighted : {false, true}) {
      TestTensor gate_up(act(), rows, 2 * width, gap), weight(DType::kF32, 1, rows), y(act(), rows, width, gap);
      TestTensor dy(act(), rows, width, gap), d_gate_up(act(), rows, 2 * width, gap), d_weight(DType::kF32, 1, rows);
      gate_up.Random(1, 3);
      weight.Random(2);
      dy.Random(3);
      const SwiGluArgs args = {
          .gate_up = gate_up, .row_weight = weighted ? ConstView(weight) : ConstView(), .offsets = {}};
      Run({&y, &d_gate_up, &d_weight}, [&](Backend& backend, Stream& stream) {
        backend.SwiGlu(stream, args, y);
        backend.SwiGluBackward(stream, args, dy, d_gate_up, d_weight);
      });
      const Matrix w = weighted ? weight.matrix() : Ones(rows);
      ExpectNear(y, reference::SwiGlu(gate_up.matrix(), w), ToleranceOf(act()), "y");
      const auto want = reference::SwiGluBackward(gate_up.matrix(), w, dy.matrix());
      ExpectNear(d_gate_up, want.d_gate_up, ToleranceOf(act(), 1e-5), "d_gate_up");
      ExpectNear(d_weight, want.d_row_weight, {1e-5, 2e-5 * std::sqrt(static_cast<double>(width))}, "d_row_weight");
    }
  }
}

TEST_P(ActivationTest, SwiGluLeavesRowsBeyondTheLastOffset) {
  TestTensor gate_up(act(), 6, 40), y(act(), 6, 20), offsets(DType::kI32, 1, 3);
  TestTensor dy(act(), 6, 20), d_gate_up(act(), 6, 40), d_weight(DType::kF32, 1, 6);
  gate_up.Random(1);
  dy.Random(2);
  const int ends[] = {0, 1, 4};
  offsets.Fill([&](int64_t, int64_t i) { return ends[i]; });
  const SwiGluArgs args = {.gate_up = gate_up, .row_weight = {}, .offsets = offsets};
  Run({&y, &d_gate_up, &d_weight}, [&](Backend& backend, Stream& stream) {
    backend.SwiGlu(stream, args, y);
    backend.SwiGluBackward(stream, args, dy, d_gate_up, d_weight);
  });
  for (int64_t i = 0; i < 6; ++i) {
    EXPECT_EQ(std::isnan(y.at(i, 3)), i >= 4) << i;  // poison is NaN
    EXPECT_EQ(std::isnan(d_gate_up.at(i, 39)), i >= 4) << i;
    EXPECT_EQ(std::isnan(d_weight.at(0, i)), i >= 4) << i;
  }
}

TEST_P(ActivationTest, SwiGluOfLargeGatesStaysFinite) {
  TestTensor gate_up(act(), 1, 8), y(act(), 1, 4), dy(act(), 1, 4), d_gate_up(act(), 1, 8);
  const double gates[] = {-1e4, -90, 90, 1e4};
  gate_up.Fill([&](int64_t, int64_t j) { return j < 4 ? gates[j] : 1.0; });
  dy.Fill([](int64_t, int64_t) { return 1.0; });
  const SwiGluArgs args = {.gate_up = gate_up, .row_weight = {}, .offsets = {}};
  Run({&y, &d_gate_up}, [&](Backend& backend, Stream& stream) {
    backend.SwiGlu(stream, args, y);
    backend.SwiGluBackward(stream, args, dy, d_gate_up, {});
  });
  EXPECT_EQ(y.at(0, 0), 0);
  EXPECT_EQ(y.at(0, 3), gate_up.at(0, 3));
  EXPECT_EQ(d_gate_up.at(0, 0), 0);
  EXPECT_EQ(d_gate_up.at(0, 3), 1);
}

TEST_P(ActivationTest, RopeRotatesAndRotatesBack) {
  for (int64_t pairs : {1, 4, 16, 21, 32}) {
    for (int64_t heads : {1, 3}) {
      const int64_t rows = 150, offset = 5, head_stride = offset + 2 * pairs + 7;
      TestTensor x(act(), rows, heads * head_stride, 3), positions(DType::kI32, 1, rows);
      TestTensor cosines(DType::kF32, 64, pairs), sines(DType::kF32, 64, pairs);
      x.Random(1);
      const auto angle = [](int64_t position, int64_t j) { return static_cast<double>(position) / (1.0 + 3.0 * j); };
      cosines.Fill([&](int64_t p, int64_t j) { return std::cos(angle(p, j)); });
      sines.Fill([&](int64_t p, int64_t j) { return std::sin(angle(p, j)); });
      positions.Fill([](int64_t, int64_t t) { return static_cast<double>(t * 7 % 64); });
      Matrix want = x.matrix();
      const Matrix before = want;
      for (int64_t t = 0; t < rows; ++t) {
        std::vector<std::complex<double>> turns;
        for (int64_t j = 0; j < pairs; ++j) turns.push_back(std::polar(1.0, angle(t * 7 % 64, j)));
        for (int64_t h = 0; h < heads; ++h) reference::Rotate(want, t, h * head_stride + offset, turns);
      }
      RopeArgs args = {.x = x,
                       .heads = heads,
                       .head_stride = head_stride,
                       .offset = offset,
                       .cos_table = cosines,
                       .sin_table = sines,
                       .positions = positions};
      Run({&x}, [&](Backend& backend, Stream& stream) { backend.Rope(stream, args); });
      ExpectNear(x, want, ToleranceOf(act(), 1e-6), "x");
      args.inverse = true;
      Run({&x}, [&](Backend& backend, Stream& stream) { backend.Rope(stream, args); });
      ExpectNear(x, before, {0, act() == DType::kBF16 ? 0.05 : 1e-6}, "x turned back");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, ActivationTest, testing::ValuesIn(OpCases()), OpCaseName);

using RopeDeathTest = ActivationTest;
TEST_P(RopeDeathTest, APositionBeyondTheTableAborts) {
  TestTensor x(act(), 1, 2), positions(DType::kI32, 1, 1), table(DType::kF32, 4, 1);
  x.Random(1);
  table.Random(2);
  positions.set(0, 0, 4);
  const RopeArgs args = {.x = x, .cos_table = table, .sin_table = table, .positions = positions};
  EXPECT_DEATH(RunOn(*one_, [&](Backend& backend, Stream& stream) { backend.Rope(stream, args); }), "4 vs. 4");
}
INSTANTIATE_TEST_SUITE_P(Cpu, RopeDeathTest, testing::Values(OpCase{Isa::kPortable, DType::kF32}), OpCaseName);

TEST(SwiGluReference, GradientsMatchFiniteDifferences) {
  const Matrix gate_up = TestTensor(DType::kF32, 3, 10).Random(1).matrix();
  const Matrix weight = TestTensor(DType::kF32, 1, 3).Random(2).matrix();
  const Matrix dy = TestTensor(DType::kF32, 3, 5).Random(3).matrix();
  const auto gradients = reference::SwiGluBackward(gate_up, weight, dy);
  const Matrix by_gate_up = reference::FiniteDifferences(
      gate_up, [&](const Matrix& moved) { return reference::Inner(dy, reference::SwiGlu(moved, weight)); });
  for (size_t i = 0; i < by_gate_up.values.size(); ++i) {
    EXPECT_NEAR(gradients.d_gate_up.values[i], by_gate_up.values[i], 1e-8);
  }
  const Matrix by_weight = reference::FiniteDifferences(
      weight, [&](const Matrix& moved) { return reference::Inner(dy, reference::SwiGlu(gate_up, moved)); });
  for (size_t i = 0; i < by_weight.values.size(); ++i) {
    EXPECT_NEAR(gradients.d_row_weight.values[i], by_weight.values[i], 1e-8);
  }
}

}  // namespace
}  // namespace shoestring
