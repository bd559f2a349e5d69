// Tests of zero, copy and add on the CPU.
#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

using ElementwiseTest = OpTest;

struct Extent {
  int64_t rows, cols, gap;
};
constexpr Extent kExtents[] = {{0, 5, 0},     {1, 1, 0},     {3, 17, 0},   {7, 33, 6},
                               {200, 301, 0}, {200, 301, 3}, {1, 70001, 0}};

TEST_P(ElementwiseTest, AddRoundsOnce) {
  for (const auto& [rows, cols, gap] : kExtents) {
    TestTensor a(act(), rows, cols, gap), b(DType::kF32, rows, cols, gap), y(act(), rows, cols, gap);
    a.Random(1);
    b.Random(2);
    Run({&y}, [&](Backend& backend, Stream& stream) { backend.Add(stream, a, b, y); });
    reference::Matrix want(rows, cols);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) want.at(i, j) = reference::RoundTo(act(), a.at(i, j) + b.at(i, j));
    }
    // Two f32 numbers added in double and rounded twice may differ from one rounding by a unit in the last place.
    ExpectNear(y, want, {act() == DType::kBF16 ? 0x1p-8 : 0x1p-23, 0}, "y");
  }
}

TEST_P(ElementwiseTest, AddMayWriteOverAnOperand) {
  TestTensor a(act(), 9, 40), b(act(), 9, 40), fresh(act(), 9, 40);
  a.Random(1);
  b.Random(2);
  Run({&fresh}, [&](Backend& backend, Stream& stream) { backend.Add(stream, a, b, fresh); });
  Run({&a}, [&](Backend& backend, Stream& stream) { backend.Add(stream, a, b, a); });
  EXPECT_EQ(a.bytes(), fresh.bytes());
}

TEST_P(ElementwiseTest, CopyConvertsToNearestEven) {
  for (const auto& [rows, cols, gap] : kExtents) {
    for (DType to : {DType::kF32, DType::kBF16}) {
      TestTensor x(act(), rows, cols, gap), y(to, rows, cols, gap);
      x.Random(3);
      Run({&y}, [&](Backend& backend, Stream& stream) { backend.Copy(stream, x, y); });
      reference::Matrix want = x.matrix();
      for (double& v : want.values) v = reference::RoundTo(to, v);
      ExpectNear(y, want, {0, 0}, "y");
    }
  }
}

TEST_P(ElementwiseTest, CopyKeepsSpecialValues) {
  const float inf = std::numeric_limits<float>::infinity();
  TestTensor x(DType::kF32, 1, 5), y(DType::kBF16, 1, 5);
  const float values[] = {inf, -inf, std::nanf(""), 0x1.fffffep+127f, -0.0f};
  for (int i = 0; i < 5; ++i) x.set(0, i, values[i]);
  Run({&y}, [&](Backend& backend, Stream& stream) { backend.Copy(stream, x, y); });
  EXPECT_EQ(y.at(0, 0), inf);
  EXPECT_EQ(y.at(0, 1), -inf);
  EXPECT_TRUE(std::isnan(y.at(0, 2)));
  EXPECT_EQ(y.at(0, 3), inf);
  EXPECT_TRUE(std::signbit(y.at(0, 4)));
}

TEST_P(ElementwiseTest, ZeroAndHostCopies) {
  for (const auto& [rows, cols, gap] : kExtents) {
    TestTensor x(act(), rows, cols, gap);
    Run({&x}, [&](Backend& backend, Stream& stream) { backend.Zero(stream, x); });
    ExpectNear(x, reference::Matrix(rows, cols), {0, 0}, "x");
  }
  TestTensor x(act(), 3, 5), y(act(), 3, 5);
  x.Random(4);
  Run({&y}, [&](Backend& backend, Stream& stream) {
    std::vector<std::byte> host(ConstView(x).bytes());
    backend.CopyToHost(stream, x, host.data());
    backend.CopyFromHost(stream, host.data(), y);
  });
  EXPECT_EQ(x.bytes(), y.bytes());
}

INSTANTIATE_TEST_SUITE_P(Cpu, ElementwiseTest, testing::ValuesIn(OpCases()), OpCaseName);

}  // namespace
}  // namespace shoestring
