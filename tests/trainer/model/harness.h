// What the tests of layers share: small shapes, random weights on both sides, memory, and the comparison of a gradient
// with central differences of the float64 reference.
#pragma once

#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "kernels/arena.h"
#include "kernels/cpu/cpu_backend.h"
#include "parallel/stage.h"
#include "tests/trainer/model/reference_model.h"
#include "trainer/model/context.h"
#include "trainer/model/weight_visitor.h"
#include "trainer/params.h"

namespace shoestring {

using model_reference::Matrix;

// A model with every mechanism on, small enough for differences of every element: one dense and one MoE layer, 8
// experts in 4 groups, one shared, one MTP module. Its epsilon is large enough to be seen where it does not belong.
inline config::ModelConfig TinyModel() {
  config::ModelConfig model;
  CHECK(google::protobuf::TextFormat::ParseFromString(R"(
    vocab_size: 19 layers: 2 hidden: 12 heads: 2
    attention { qk_nope_head_dim: 4 qk_rope_head_dim: 4 v_head_dim: 6 q_lora_rank: 8 kv_lora_rank: 6 rope_theta: 100 }
    dense_layers: 1 dense_ffn: 10
    moe { routed_experts: 8 shared_experts: 1 active_experts: 3 expert_ffn: 5 groups: 4 groups_kept: 2
          group_score: TOP2_SUM gate: SIGMOID renormalize: true routed_scaling: 2.5 }
    mtp_depth: 1 norm_eps: 1e-3 init_std: 0.006 bos_id: 0 eos_id: 1)",
                                                      &model));
  return model;
}

inline config::PrecisionConfig Precision(config::PrecisionConfig::Mode mode) {
  config::PrecisionConfig precision;
  precision.set_mode(mode);
  return precision;
}

inline ModelShape TinyShape(const config::ModelConfig& model,
                            const config::PrecisionConfig& precision = Precision(config::PrecisionConfig::FP32)) {
  return MakeModelShape(model, model.has_yarn() ? &model.yarn() : nullptr, precision, /*sequences=*/2,
                        /*sequence_length=*/6);
}

// Aligned memory for an arena, filled with NaNs so that whatever is read before it is written shows.
class TestMemory {
 public:
  explicit TestMemory(int64_t bytes) : bytes_(bytes), data_(static_cast<std::byte*>(std::aligned_alloc(64, bytes))) {
    std::memset(data_, 0xff, bytes);
  }
  ~TestMemory() { std::free(data_); }
  TestMemory(const TestMemory&) = delete;
  TestMemory& operator=(const TestMemory&) = delete;
  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_;
  std::byte* data_;
};

// Numbers that FP32 holds exactly, so that both sides start from the same.
inline Matrix RandomMatrix(int64_t rows, int64_t cols, uint64_t stream, double scale, double mean = 0) {
  const Rng rng(7, RngPurpose::kTest, stream);
  Matrix m(rows, cols);
  for (size_t i = 0; i < m.values.size(); ++i) m.values[i] = static_cast<float>(mean + scale * rng.Normal(i));
  return m;
}

inline Matrix ToMatrix(ConstView x) {
  Matrix m(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) {
      m.at(r, c) = x.dtype == DType::kF32 ? x.as<float>(r)[c] : static_cast<float>(x.as<BF16>(r)[c]);
    }
  }
  return m;
}

inline void FromMatrix(const Matrix& m, View x) {
  CHECK_EQ(m.rows, x.rows);
  CHECK_EQ(m.cols, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) {
      const float value = static_cast<float>(m.at(r, c));
      if (x.dtype == DType::kF32) {
        x.as<float>(r)[c] = value;
      } else {
        x.as<BF16>(r)[c] = BF16(value);
      }
    }
  }
}

inline double Dot(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

// |ours - reference| <= tolerance * largest |reference|.
inline void ExpectClose(const std::string& what, const Matrix& ours, const Matrix& reference, double tolerance) {
  ASSERT_EQ(ours.rows, reference.rows) << what;
  ASSERT_EQ(ours.cols, reference.cols) << what;
  double largest = 0;
  for (const double v : reference.values) largest = std::max(largest, std::abs(v));
  ASSERT_GT(largest, 0) << what << ": a tensor of zeros proves nothing";
  for (size_t i = 0; i < ours.values.size(); ++i) {
    ASSERT_NEAR(ours.values[i], reference.values[i], tolerance * largest) << what << " element " << i;
  }
}

// Tolerances of FP32 against float64, relative to the largest element of a tensor. A chain of some hundred FP32
// roundings (6e-8 each, partly cancelling) through factors of order 1 stays below 2e-6 in gradients and 4e-7 in outputs
// here, worst seen; the margin is for other orders of summation on other instruction sets. The smallest term that one
// can leave out, the balance loss's share of a gradient, is seen at 7e-4. Differences in float64 with step 1e-5 are
// themselves exact to about 1e-9.
constexpr double kGradientTolerance = 1e-5;
constexpr double kForwardTolerance = 3e-6;

// Gradient of `loss` with respect to every element of `variable` (which `loss` reads), by central differences.
inline Matrix Differences(Matrix& variable, const std::function<double()>& loss) {
  constexpr double kStep = 1e-5;
  Matrix gradient(variable.rows, variable.cols);
  for (size_t i = 0; i < variable.values.size(); ++i) {
    const double kept = variable.values[i];
    variable.values[i] = kept + kStep;
    const double above = loss();
    variable.values[i] = kept - kStep;
    const double below = loss();
    variable.values[i] = kept;
    gradient.values[i] = (above - below) / (2 * kStep);
  }
  return gradient;
}

// Values for every parameter of the table, as [stack * rows, cols].
inline model_reference::Tensors RandomWeights(const std::vector<Parameter>& table) {
  model_reference::Tensors weights;
  for (size_t i = 0; i < table.size(); ++i) {
    const Parameter& p = table[i];
    const double scale = !p.trained ? 0.05 : p.is_matrix() ? 1 / std::sqrt(static_cast<double>(p.cols)) : 0.2;
    weights[p.name] = RandomMatrix(p.stack * p.rows, p.cols, 100 + i, scale, p.initializer == Initializer::kOnes);
  }
  return weights;
}

// One layer under test: backend, arena, tables; weights of the reference bound by name, gradients kept by name.
class LayerBench {
 public:
  explicit LayerBench(const config::ModelConfig& model, const RecomputeOptions& recompute = {})
      : shape(TinyShape(model)),
        recompute(recompute),
        reference(shape, RandomWeights(BuildParameterTable(model))),
        backend(MakeCpuBackend({.threads = 1})),
        stream(backend->MakeStream()),
        arena(memory_.data(), memory_.bytes()),
        rope_(MakeRopeTable(*backend, *stream, arena, shape)),
        positions_(Allocate(DType::kI32, 1, shape.tokens())) {
    for (int64_t t = 0; t < shape.tokens(); ++t) positions_.as<int32_t>()[t] = t % shape.sequence_length;
  }

  LayerContext ctx() {
    return {*backend, *stream, arena, shape, recompute, rope_, SoftmaxScale(shape), positions_, {}};
  }
  View Allocate(DType dtype, int64_t rows, int64_t cols) {
    return arena.Allocate(Purpose::kData, "test", dtype, rows, cols);
  }
  View Put(const Matrix& m) {
    const View x = Allocate(DType::kF32, m.rows, m.cols);
    FromMatrix(m, x);
    return x;
  }
  // For VisitXWeights.
  auto WeightBinder() {
    return [this](const std::string& name, int, const WeightPlace& place) { place.Bind(Put(reference.w.at(name))); };
  }
  auto GradientBinder() {
    return [this](const std::string& name, int, const WeightPlace& place) {
      const Matrix& like = reference.w.at(name);
      const View view = Put(Matrix(like.rows, like.cols));
      place.Bind(view);
      if (name.find("correction_bias") == std::string::npos) gradients[name] = view;
    };
  }
  // Every gradient that was bound, against differences of `loss`, which reads reference.w.
  void ExpectGradients(const std::function<double()>& loss) {
    ASSERT_FALSE(gradients.empty());
    for (const auto& [name, view] : gradients) {
      ExpectClose(name, ToMatrix(view), Differences(reference.w.at(name), loss), kGradientTolerance);
    }
  }

 private:
  TestMemory memory_{int64_t{1} << 23};

 public:
  const ModelShape shape;
  const RecomputeOptions recompute;
  model_reference::Model reference;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream;
  Arena arena;
  std::map<std::string, View> gradients;

 private:
  RopeTable rope_;
  View positions_;
};

}  // namespace shoestring
