// Products of linear layers under FP8 recipes against float64 loops over independently quantised operands.
#include "trainer/model/linear.h"

#include <ostream>

#include "tests/trainer/fp8_recipe.h"
#include "tests/trainer/model/harness.h"
#include "tests/trainer/model/product_check.h"
#include "tests/trainer/model/quantised_reference.h"
#include "trainer/train_state.h"

namespace shoestring {
namespace {

using quantised_reference::Format;
using quantised_reference::kE4M3;
using quantised_reference::kE5M2;
using quantised_reference::kE5M6;
using quantised_reference::Quantise;
using quantised_reference::QuantiseRows;
using quantised_reference::Times;
using quantised_reference::ToBf16;
using quantised_reference::Transposed;

// Ragged in every direction.
constexpr int64_t kTokens = 150, kInputs = 200, kOutputs = 170, kExperts = 3;
constexpr int64_t kOffsets[kExperts + 1] = {0, 70, 70, kTokens};  // the second expert gets nothing

struct Case {
  const char* name;
  std::string changes = "";
  Format activation = kE4M3, weight = kE4M3, gradient = kE4M3;
  int64_t along = 128;  // columns of a token's tile
  int64_t weight_tile = 128;
  int64_t by_tokens = 128, by_channels = 1;  // tile of the weight gradient
  bool power_of_two = false;                 // of all operands
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class LinearTest : public testing::TestWithParam<Case> {
 protected:
  LinearTest()
      : shape(TinyShape(TinyModel(), Fp8Precision(GetParam().changes))), arena(memory_.data(), memory_.bytes()) {}

  LayerContext ctx() { return {*backend, *stream, arena, shape, recompute_, rope_, 1, {}, {}}; }
  View Put(const Matrix& m, DType dtype = DType::kBF16) {
    const View x = arena.Allocate(Purpose::kData, "test", dtype, m.rows, m.cols);
    FromMatrix(m, x);
    return x;
  }
  Operand PutWeight(const Matrix& m, int64_t stack) {
    Parameter p;
    p.stack = stack;
    p.rows = m.rows / stack;
    p.cols = m.cols;
    const MutableOperand quantised = AllocateQuantisedWeight(arena, p, shape.formats.weight);
    QuantiseWeight(*backend, *stream, p, Put(m), quantised);
    return quantised;
  }
  Segments PutSegments() {
    const View offsets = arena.Allocate(Purpose::kData, "test", DType::kI32, 1, kExperts + 1);
    std::copy(kOffsets, kOffsets + kExperts + 1, offsets.as<int32_t>());
    return {offsets, kExperts, kTokens};
  }
  // Tokens in tiles of one row, or regrouped within [first, end).
  Matrix ByRow(const Matrix& x, const Format& format) const {
    return Quantise(x, format, 1, GetParam().along, GetParam().power_of_two);
  }
  Matrix ByTokens(const Matrix& x, const Format& format, int64_t first, int64_t end) const {
    Matrix y = x;
    QuantiseRows(format, GetParam().by_tokens, GetParam().by_channels, GetParam().power_of_two, first, end, y);
    return model_reference::Rows(y, first, end - first);
  }
  Matrix Weight(const Matrix& w) const {
    return Quantise(w, GetParam().weight, GetParam().weight_tile, GetParam().weight_tile, GetParam().power_of_two);
  }

 private:
  TestMemory memory_{int64_t{1} << 24};
  RecomputeOptions recompute_;
  RopeTable rope_;

 public:
  const ModelShape shape;
  std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 2});
  std::unique_ptr<Stream> stream = backend->MakeStream();
  Arena arena;
};

// Rows of very different sizes, so that a scale of another tile would show; the zeros make a tile of nothing.
Matrix Tokens(int64_t cols, uint64_t seed) {
  Matrix m = RandomMatrix(kTokens, cols, seed, 1);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) {
      m.at(r, c) = r == 5 ? 0 : ToBf16(m.at(r, c) * std::exp2(static_cast<double>(r * 7 % 13 - 6 + c / 128 * 3)));
    }
  }
  return m;
}

TEST_P(LinearTest, DenseAgreesWithTheDefinition) {
  const Case& c = GetParam();
  const Matrix x = Tokens(kInputs, 1), dy = Tokens(kOutputs, 2);
  const Matrix w = ToBf16(RandomMatrix(kOutputs, kInputs, 3, 0.02));
  const Operand weight = PutWeight(w, 1);
  const View y = Put(Matrix(kTokens, kOutputs)), dx = Put(Matrix(kTokens, kInputs));
  const View dw = Put(Matrix(kOutputs, kInputs), DType::kF32);
  LinearForward(ctx(), Put(x), weight, y);
  ExpectProduct(y, ByRow(x, c.activation), Transposed(Weight(w)), "y");
  LinearBackwardInput(ctx(), Put(dy), weight, dx);
  ExpectProduct(dx, ByRow(dy, c.gradient), Weight(w), "dx");
  LinearBackwardWeight(ctx(), Put(dy), Put(x), dw);
  const Matrix gradient = ByTokens(dy, c.gradient, 0, kTokens), input = ByTokens(x, c.activation, 0, kTokens);
  ExpectProduct(dw, Transposed(gradient), input, "dw");
}

TEST_P(LinearTest, GroupedAgreesWithTheDefinition) {
  const Case& c = GetParam();
  const Matrix x = Tokens(kInputs, 1), dy = Tokens(kOutputs, 2);
  const Matrix w = ToBf16(RandomMatrix(kExperts * kOutputs, kInputs, 3, 0.02));
  const Operand weight = PutWeight(w, kExperts);
  const Segments segments = PutSegments();
  const View y = Put(Matrix(kTokens, kOutputs)), dx = Put(Matrix(kTokens, kInputs));
  const View dw = Put(Matrix(kExperts * kOutputs, kInputs), DType::kF32);
  LinearForward(ctx(), Put(x), weight, y, segments);
  LinearBackwardInput(ctx(), Put(dy), weight, dx, segments);
  LinearBackwardWeight(ctx(), Put(dy), Put(x), dw, segments);
  for (int64_t e = 0; e < kExperts; ++e) {
    const int64_t first = kOffsets[e], count = kOffsets[e + 1] - first;
    if (count == 0) continue;
    const Matrix matrix = Weight(model_reference::Rows(w, e * kOutputs, kOutputs));
    const Matrix x_e = model_reference::Rows(x, first, count), dy_e = model_reference::Rows(dy, first, count);
    ExpectProduct(y.Rows(first, count), ByRow(x_e, c.activation), Transposed(matrix), "y");
    ExpectProduct(dx.Rows(first, count), ByRow(dy_e, c.gradient), matrix, "dx");
    const Matrix gradient = ByTokens(dy, c.gradient, first, first + count);
    ExpectProduct(dw.Rows(e * kOutputs, kOutputs), Transposed(gradient),
                  ByTokens(x, c.activation, first, first + count), "dw");
  }
  EXPECT_EQ(Dot(ToMatrix(dw.Rows(kOutputs, kOutputs)), ToMatrix(dw.Rows(kOutputs, kOutputs))), 0) << "no token";
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, LinearTest,
    testing::Values(
        Case{.name = "V3"},
        Case{.name = "PowerOfTwo",
             .changes = "power_of_two_activation: true power_of_two_weight: true power_of_two_gradient: true",
             .power_of_two = true},
        Case{.name = "SmallTiles",
             .changes = "activation_tile { columns: 64 } gradient_tile { columns: 64 } promotion_interval: 32 "
                        "weight_tile { rows: 64 columns: 64 } weight_gradient_tile { rows: 32 columns: 2 }",
             .along = 64,
             .weight_tile = 64,
             .by_tokens = 32,
             .by_channels = 2},
        Case{.name = "E5M2",
             .changes = "activation_format: E5M2 weight_format: E4M3 gradient_format: E5M2",
             .activation = kE5M2,
             .gradient = kE5M2}),
    [](const auto& info) { return std::string(info.param.name); });

// What came quantised is multiplied as it is, and regrouped from its values, with power-of-two scales where it has
// such.
TEST_P(LinearTest, WhatCameQuantisedIsRegroupedFromItsValues) {
  const Case& c = GetParam();
  const Matrix x = Tokens(kInputs, 1), dy = Tokens(kOutputs, 2);
  const Matrix w = ToBf16(RandomMatrix(kOutputs, kInputs, 3, 0.02));
  const Operand weight = PutWeight(w, 1);
  const View y = Put(Matrix(kTokens, kOutputs)), dx = Put(Matrix(kTokens, kInputs));
  const View dw = Put(Matrix(kOutputs, kInputs), DType::kF32);
  const Operand x_came = AsCached(ctx(), Put(x), shape.formats.dispatch);
  const Operand dy_came = AsCached(ctx(), Put(dy), shape.formats.dispatch_gradient);
  const Matrix x_values = Quantise(x, kE4M3, 1, c.along, true), dy_values = Quantise(dy, kE4M3, 1, c.along, true);
  LinearForward(ctx(), x_came, weight, y);
  ExpectProduct(y, x_values, Transposed(Weight(w)), "y");
  LinearBackwardInput(ctx(), dy_came, weight, dx);
  ExpectProduct(dx, dy_values, Weight(w), "dx");
  LinearBackwardWeight(ctx(), dy_came, x_came, dw);
  const Matrix gradient = Quantise(dy_values, c.gradient, c.by_tokens, c.by_channels, true);
  const Matrix input = Quantise(x_values, c.activation, c.by_tokens, c.by_channels, true);
  ExpectProduct(dw, Transposed(gradient), input, "dw");
}

TEST_P(LinearTest, CachesRoundAsTheirFormatsSay) {
  const Matrix x = Tokens(kInputs, 1);
  const View exact = Put(x);
  const auto cached = [&](const OperandFormat& format) {
    return ToMatrix(AsAct(ctx(), AsCached(ctx(), exact, format)));
  };
  const Case& c = GetParam();
  const Matrix attention = ToBf16(Quantise(x, kE5M6, 1, c.along, true));
  EXPECT_EQ(cached(shape.formats.cached_attention_output).values, attention.values);
  const Matrix swiglu = ToBf16(Quantise(x, kE4M3, 1, c.along, c.power_of_two));
  EXPECT_EQ(cached(shape.formats.cached_swiglu_input).values, swiglu.values);
  EXPECT_EQ(cached({DType::kBF16, {}, false}).values, x.values);
}

}  // namespace
}  // namespace shoestring
