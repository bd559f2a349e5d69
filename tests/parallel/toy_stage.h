// A stage small enough to compute by loops in float64: two linear layers with a GELU between, as in DualPipe's example
// test (deepseek-ai/DualPipe, examples/example_dualpipe.py); its backward is split into inputs and weights.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/stage.h"

namespace shoestring {

using Matrix = std::vector<double>;  // row-major

struct ToyShape {
  int64_t rows = 3;  // T
  int64_t width = 4;
  int64_t hidden = 16;
};

struct ToyWeights {
  Matrix up;    // [width, hidden]
  Matrix down;  // [hidden, width]
};
ToyWeights RandomToyWeights(const ToyShape& shape, int stage);
// Input of the first stage and target of the last, [rows, width].
Matrix ToyInput(const ToyShape& shape, int direction, int64_t micro_batch);
Matrix ToyTarget(const ToyShape& shape, int direction, int64_t micro_batch);

// MicroBatchId here: `lane` is the direction, `wave` the micro-batch. Everything that a stage must not mix up is
// checked: a slot that another micro-batch has taken, a forward or a backward that comes twice. Loss: mean square
// error.
class ToyStage final : public Stage {
 public:
  ToyStage(const ToyShape& shape, const ToyWeights& weights, bool first, bool last, int slots);

  void Forward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) override;
  void BackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                     View d_input) override;
  void BackwardWeight(MicroBatchId id, const MicroBatchTokens& tokens, int slot) override;

  const ToyWeights& gradients() const { return gradients_; }
  // Of the last stage: the loss of each micro-batch, by its number; its outputs one after the other, in that order too.
  const std::vector<double>& losses() const { return losses_; }
  const Matrix& outputs() const { return outputs_; }

 private:
  enum class State { kFree, kForward, kBackward };
  struct Saved {
    State state = State::kFree;
    MicroBatchId id;
    Matrix x, before_gelu, after_gelu, d_output, d_before_gelu;
  };
  Saved& SavedOf(MicroBatchId id, int slot, State expected);

  const ToyShape shape_;
  const ToyWeights& weights_;
  const bool first_;
  const bool last_;
  std::vector<Saved> saved_;
  ToyWeights gradients_;
  std::vector<double> losses_;
  Matrix outputs_;
};

// a [m, k] * b [k, n], each entry summed in the order of k; transposed operands are read by columns.
Matrix Multiply(const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, int64_t m, int64_t n, int64_t k);

}  // namespace shoestring
