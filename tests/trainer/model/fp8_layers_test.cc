// What each product of attention and of a feed-forward layer reads under the report's FP8 recipe, against float64.
#include "tests/trainer/fp8_recipe.h"
#include "tests/trainer/model/product_check.h"
#include "trainer/model/linear.h"
#include "trainer/model/mla.h"
#include "trainer/model/mlp.h"
#include "trainer/train_state.h"

namespace shoestring {
namespace {

using quantised_reference::kE4M3;
using quantised_reference::Quantise;
using quantised_reference::Times;
using quantised_reference::ToBf16;
using quantised_reference::Transposed;

// Tiles of 128 end inside every width, and inside the tokens.
config::ModelConfig WideModel() {
  config::ModelConfig model = TinyModel();
  model.set_hidden(160);
  config::AttentionConfig& attention = *model.mutable_attention();
  attention.set_qk_nope_head_dim(40);
  attention.set_qk_rope_head_dim(8);
  attention.set_v_head_dim(72);
  attention.set_q_lora_rank(136);
  attention.set_kv_lora_rank(132);
  return model;
}

class Fp8LayersTest : public testing::TestWithParam<bool> {  // whether all is recomputed
 protected:
  Fp8LayersTest()
      : shape(MakeModelShape(WideModel(), nullptr, Fp8Precision(), 2, 75)),
        arena(memory_.data(), memory_.bytes()),
        rope_(MakeRopeTable(*backend, *stream, arena, shape)),
        positions_(arena.Allocate(Purpose::kData, "test", DType::kI32, 1, shape.tokens())) {
    for (int64_t t = 0; t < shape.tokens(); ++t) positions_.as<int32_t>()[t] = t % shape.sequence_length;
  }

  LayerContext ctx() {
    return {*backend, *stream, arena, shape, recompute, rope_, SoftmaxScale(shape), positions_, {}};
  }
  View Put(const Matrix& m, DType dtype = DType::kBF16) {
    const View x = arena.Allocate(Purpose::kData, "test", dtype, m.rows, m.cols);
    FromMatrix(m, x);
    return x;
  }
  View Zeros(int64_t rows, int64_t cols, DType dtype) { return Put(Matrix(rows, cols), dtype); }
  // A weight, its operand and its gradient.
  struct Weight {
    Matrix value;  // of the operand
    MutableOperand operand;
    View gradient;
  };
  Weight MakeWeight(int64_t rows, int64_t cols, uint64_t seed) {
    Parameter p;
    p.rows = rows;
    p.cols = cols;
    const Matrix exact = ToBf16(RandomMatrix(rows, cols, seed, 1 / std::sqrt(static_cast<double>(cols))));
    Weight w = {Quantise(exact, kE4M3, 128, 128), AllocateQuantisedWeight(arena, p, shape.formats.weight),
                Zeros(rows, cols, DType::kF32)};
    QuantiseWeight(*backend, *stream, p, Put(exact), w.operand);
    return w;
  }
  Matrix Values(const Operand& x) { return ToMatrix(AsAct(ctx(), x)); }

 private:
  TestMemory memory_{int64_t{1} << 25};

 public:
  const ModelShape shape;
  const RecomputeOptions recompute = {GetParam(), GetParam(), GetParam()};
  std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  std::unique_ptr<Stream> stream = backend->MakeStream();
  Arena arena;

 private:
  RopeTable rope_;
  View positions_;
};

Matrix ByRow(const Matrix& x, bool power_of_two = false) { return Quantise(x, kE4M3, 1, 128, power_of_two); }
Matrix ByTokens(const Matrix& x, bool power_of_two = false) { return Quantise(x, kE4M3, 128, 1, power_of_two); }

// Both sides round to BF16 and to E4M3 after FP32 or float64 sums, so now and then a code differs by one; a tensor that
// is rounded once too often, or too rarely, is 2 % off.
void ExpectNear(const std::string& what, const Matrix& ours, const Matrix& reference) {
  ASSERT_EQ(ours.values.size(), reference.values.size()) << what;
  double difference = 0, square = 0;
  for (size_t i = 0; i < ours.values.size(); ++i) {
    difference += std::pow(ours.values[i] - reference.values[i], 2);
    square += reference.values[i] * reference.values[i];
  }
  ASSERT_GT(square, 0) << what;
  EXPECT_LT(std::sqrt(difference / square), 3e-3) << what;
}

// The routed experts' kind of layer: tokens and gradients came quantised with power-of-two scales.
TEST_P(Fp8LayersTest, FeedForwardRoundsWhereTheRecipeSays) {
  const int64_t tokens = shape.tokens(), width = 140;
  const Weight gate_up = MakeWeight(2 * width, shape.hidden, 1), down = MakeWeight(shape.hidden, width, 2);
  const Matrix x = ByRow(ToBf16(RandomMatrix(tokens, shape.hidden, 3, 1)), true);
  const Matrix dy = ByRow(ToBf16(RandomMatrix(tokens, shape.hidden, 4, 0.01)), true);
  const Matrix row_weight = RandomMatrix(1, tokens, 5, 0.1, 1);
  const Operand x_came = AsCached(ctx(), Put(x), shape.formats.dispatch);
  const Operand dy_came = AsCached(ctx(), Put(dy), shape.formats.dispatch_gradient);
  const MlpSaved saved = AllocateMlpSaved(shape, recompute, shape.formats.cached_swiglu_input, tokens, width, arena);
  const MlpPending pending = AllocateMlpPending(shape, tokens, width, arena);
  const View d_weight = Zeros(1, tokens, DType::kF32);
  const MlpRows rows = {{}, Put(row_weight, DType::kF32), d_weight};
  const View out = Zeros(tokens, shape.hidden, DType::kBF16), dx = Zeros(tokens, shape.hidden, DType::kBF16);
  const MlpWeights weights = {gate_up.operand, down.operand}, grads = {gate_up.gradient, down.gradient};
  MlpForward(ctx(), weights, x_came, saved, out, rows);
  MlpBackwardInput(ctx(), weights, saved, pending, dy_came, dx, rows);
  MlpBackwardWeight(ctx(), x_came, saved, pending, dy_came, grads, rows);

  const auto swiglu = [&](const Matrix& in) {
    Matrix hidden(tokens, width);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < width; ++c) {
        hidden.at(t, c) = model_reference::Silu(in.at(t, c)) * in.at(t, width + c) * row_weight.at(0, t);
      }
    }
    return ToBf16(hidden);
  };
  const Matrix exact = ToBf16(Times(x, Transposed(gate_up.value)));
  ExpectNear("out", ToMatrix(out), Times(ByRow(swiglu(exact)), Transposed(down.value)));
  const Matrix kept = ToBf16(ByRow(exact));
  ExpectNear("kept gate_up", Values(saved.gate_up), kept);
  const Matrix d_hidden = ToBf16(Times(dy, down.value));
  Matrix d_gate_up(tokens, 2 * width);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < width; ++c) {
      const double gate = kept.at(t, c), up = kept.at(t, width + c), d = d_hidden.at(t, c) * row_weight.at(0, t);
      const double sigmoid = 1 / (1 + std::exp(-gate));
      d_gate_up.at(t, c) = d * up * sigmoid * (1 + gate * (1 - sigmoid));
      d_gate_up.at(t, width + c) = d * gate * sigmoid;
    }
  }
  d_gate_up = ToBf16(d_gate_up);
  ExpectNear("d_gate_up", ToMatrix(pending.d_gate_up), d_gate_up);
  ExpectNear("dx", ToMatrix(dx), Times(ByRow(d_gate_up), gate_up.value));
  const Matrix hidden = ByTokens(ByRow(swiglu(kept)));
  ExpectNear("d_down", ToMatrix(down.gradient), Times(Transposed(ByTokens(dy, true)), hidden));
  ExpectNear("d_gate_up_proj", ToMatrix(gate_up.gradient), Times(Transposed(ByTokens(d_gate_up)), ByTokens(x, true)));
}

// Every product of attention from what its neighbours left: each of them alone, so to the last bits of FP32 sums.
TEST_P(Fp8LayersTest, AttentionMultipliesWhatTheRecipeSays) {
  const ModelShape& s = shape;
  const int64_t tokens = s.tokens();
  const Weight qkv_a = MakeWeight(s.qkv_a_width(), s.hidden, 1), q_b = MakeWeight(s.query_width(), s.q_rank, 2);
  const Weight kv_b = MakeWeight(s.kv_width(), s.kv_rank, 3), o = MakeWeight(s.hidden, s.value_width(), 4);
  const auto gain = [&](int64_t cols, uint64_t seed) { return Put(RandomMatrix(1, cols, seed, 0.2, 1), DType::kF32); };
  const MlaWeights weights = {gain(s.hidden, 5),  qkv_a.operand, gain(s.q_rank, 6), q_b.operand,
                              gain(s.kv_rank, 7), kv_b.operand,  o.operand};
  const MlaWeights grads = {Zeros(1, s.hidden, DType::kF32),
                            qkv_a.gradient,
                            Zeros(1, s.q_rank, DType::kF32),
                            q_b.gradient,
                            Zeros(1, s.kv_rank, DType::kF32),
                            kv_b.gradient,
                            o.gradient};
  const MlaSaved saved = AllocateMlaSaved(s, recompute, arena);
  const MlaPending pending = AllocateMlaPending(s, arena);
  FromMatrix(RandomMatrix(tokens, s.hidden, 8, 1), saved.x);
  FromMatrix(RandomMatrix(tokens, s.hidden, 9, 0.01), pending.d_out);
  const View out = Zeros(tokens, s.hidden, DType::kBF16), dx = Zeros(tokens, s.hidden, DType::kBF16);
  MlaForward(ctx(), weights, saved, out);
  MlaBackwardInput(ctx(), weights, saved, pending, {}, dx);
  MlaBackwardWeight(ctx(), weights, saved, pending, grads);

  const auto norm = [&](View x, View gain_of, double epsilon) {
    const View y = Zeros(x.rows, x.cols, DType::kBF16);
    backend->RmsNorm(*stream, {x, {}, {}, gain_of, epsilon, y, {}});
    return ToMatrix(y);
  };
  const Matrix normed = ByRow(norm(saved.x, weights.norm, s.norm_eps));
  const Matrix c_q = ByRow(norm(saved.qkv_a.Columns(0, s.q_rank), weights.q_norm, kLatentNormEps));
  const Matrix c_kv = ByRow(norm(saved.qkv_a.Columns(s.q_rank, s.kv_rank), weights.kv_norm, kLatentNormEps));
  const int64_t latents = s.q_rank + s.kv_rank;  // the key behind them is rotated afterwards
  ExpectProduct(saved.qkv_a.Columns(0, latents), normed, model_reference::Columns(Transposed(qkv_a.value), 0, latents),
                "qkv_a");
  if (saved.kv) ExpectProduct(saved.kv, c_kv, Transposed(kv_b.value), "kv");
  // The core's output: forward projects the exact one, which E5M6 knows to 1 part in 128.
  EXPECT_EQ(saved.out.values.dtype, DType::kE5M6);
  const Matrix core = Values(saved.out);
  const Matrix projected = Times(core, Transposed(o.value));
  EXPECT_GT(Dot(ToMatrix(out), projected) / std::sqrt(Dot(projected, projected) * Dot(ToMatrix(out), ToMatrix(out))),
            0.999);
  ExpectProduct(pending.d_c_q, ByRow(ToMatrix(pending.d_q)), q_b.value, "d_c_q");
  ExpectProduct(pending.d_c_kv, ByRow(ToMatrix(pending.d_kv)), kv_b.value, "d_c_kv");
  ExpectProduct(pending.d_normed, ByRow(ToMatrix(pending.d_qkv_a)), qkv_a.value, "d_normed");
  const auto expect_gradient = [&](View gradient, View dy, const Matrix& x, bool power_of_two, const char* what) {
    ExpectProduct(gradient, Transposed(ByTokens(ToMatrix(dy))), ByTokens(x, power_of_two), what);
  };
  expect_gradient(o.gradient, pending.d_out, core, true, "d_o");
  expect_gradient(kv_b.gradient, pending.d_kv, c_kv, false, "d_kv_b");
  expect_gradient(q_b.gradient, pending.d_q, c_q, false, "d_q_b");
  expect_gradient(qkv_a.gradient, pending.d_qkv_a, normed, false, "d_qkv_a");
}

INSTANTIATE_TEST_SUITE_P(Recompute, Fp8LayersTest, testing::Bool());

}  // namespace
}  // namespace shoestring
