// Loops over doubles.
#include "tests/parallel/toy_stage.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace shoestring {
namespace {

// A number in (-1, 1) that depends on all its arguments.
double Random(int64_t what, int64_t which, int64_t index) {
  const double x = std::sin(static_cast<double>(what * 7919 + which * 104729 + index * 31 + 1)) * 43758.5453;
  return 2.0 * (x - std::floor(x)) - 1.0;
}

Matrix RandomMatrix(int64_t what, int64_t which, int64_t size, double scale) {
  Matrix m(size);
  for (int64_t i = 0; i < size; ++i) m[i] = scale * Random(what, which, i);
  return m;
}

double Gelu(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }
double GeluSlope(double x) {
  constexpr double kPi = 3.14159265358979323846;
  return 0.5 * (1.0 + std::erf(x / std::sqrt(2.0))) + x * std::exp(-0.5 * x * x) / std::sqrt(2.0 * kPi);
}

Matrix Read(ConstView view) {
  CHECK(view.contiguous());
  return Matrix(view.as<double>(), view.as<double>() + view.elements());
}

void Write(const Matrix& matrix, View view) {
  CHECK_EQ(view.elements(), static_cast<int64_t>(matrix.size()));
  std::copy(matrix.begin(), matrix.end(), view.as<double>());
}

void Add(const Matrix& x, Matrix& sum) {
  for (size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
}

}  // namespace

Matrix Multiply(const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, int64_t m, int64_t n, int64_t k) {
  Matrix c(m * n, 0.0);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) {
        c[i * n + j] += (transpose_a ? a[l * m + i] : a[i * k + l]) * (transpose_b ? b[j * k + l] : b[l * n + j]);
      }
    }
  }
  return c;
}

ToyWeights RandomToyWeights(const ToyShape& shape, int stage) {
  const int64_t size = shape.width * shape.hidden;
  return {RandomMatrix(1, stage, size, 0.9), RandomMatrix(2, stage, size, 0.5)};
}
Matrix ToyInput(const ToyShape& shape, int direction, int64_t micro_batch) {
  return RandomMatrix(3 + direction, micro_batch, shape.rows * shape.width, 1.0);
}
Matrix ToyTarget(const ToyShape& shape, int direction, int64_t micro_batch) {
  return RandomMatrix(5 + direction, micro_batch, shape.rows * shape.width, 1.0);
}

ToyStage::ToyStage(const ToyShape& shape, const ToyWeights& weights, bool first, bool last, int slots)
    : shape_(shape), weights_(weights), first_(first), last_(last), saved_(slots) {
  gradients_.up.resize(weights.up.size());
  gradients_.down.resize(weights.down.size());
}

ToyStage::Saved& ToyStage::SavedOf(MicroBatchId id, int slot, State expected) {
  Saved& saved = saved_.at(slot);
  CHECK(saved.state == expected);
  if (expected != State::kFree) {
    CHECK_EQ(saved.id.lane, id.lane);
    CHECK_EQ(saved.id.wave, id.wave);
  }
  return saved;
}

void ToyStage::Forward(MicroBatchId id, const MicroBatchTokens&, int slot, ConstView input, View output) {
  CHECK_EQ(static_cast<bool>(input), !first_);
  Saved& saved = SavedOf(id, slot, State::kFree);
  saved.state = State::kForward;
  saved.id = id;
  saved.x = first_ ? ToyInput(shape_, static_cast<int>(id.lane), id.wave) : Read(input);
  saved.before_gelu = Multiply(saved.x, false, weights_.up, false, shape_.rows, shape_.hidden, shape_.width);
  saved.after_gelu = saved.before_gelu;
  for (double& value : saved.after_gelu) value = Gelu(value);
  const Matrix y = Multiply(saved.after_gelu, false, weights_.down, false, shape_.rows, shape_.width, shape_.hidden);
  if (!last_) return Write(y, output);
  const Matrix target = ToyTarget(shape_, static_cast<int>(id.lane), id.wave);
  double loss = 0.0;
  saved.d_output.resize(y.size());
  for (size_t i = 0; i < y.size(); ++i) {
    loss += (y[i] - target[i]) * (y[i] - target[i]) / static_cast<double>(y.size());
    saved.d_output[i] = 2.0 * (y[i] - target[i]) / static_cast<double>(y.size());
  }
  CHECK_EQ(static_cast<int64_t>(losses_.size()), id.wave);
  losses_.push_back(loss);
  outputs_.insert(outputs_.end(), y.begin(), y.end());
}

void ToyStage::BackwardInput(MicroBatchId id, const MicroBatchTokens&, int slot, ConstView d_output, View d_input) {
  CHECK_EQ(static_cast<bool>(d_output), !last_);
  Saved& saved = SavedOf(id, slot, State::kForward);
  saved.state = State::kBackward;
  if (!last_) saved.d_output = Read(d_output);
  saved.d_before_gelu = Multiply(saved.d_output, false, weights_.down, true, shape_.rows, shape_.hidden, shape_.width);
  for (size_t i = 0; i < saved.d_before_gelu.size(); ++i) saved.d_before_gelu[i] *= GeluSlope(saved.before_gelu[i]);
  if (first_) return;
  Write(Multiply(saved.d_before_gelu, false, weights_.up, true, shape_.rows, shape_.width, shape_.hidden), d_input);
}

void ToyStage::BackwardWeight(MicroBatchId id, const MicroBatchTokens&, int slot) {
  Saved& saved = SavedOf(id, slot, State::kBackward);
  Add(Multiply(saved.x, true, saved.d_before_gelu, false, shape_.width, shape_.hidden, shape_.rows), gradients_.up);
  Add(Multiply(saved.after_gelu, true, saved.d_output, false, shape_.hidden, shape_.width, shape_.rows),
      gradients_.down);
  saved = Saved();
}

}  // namespace shoestring
