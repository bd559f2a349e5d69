// All that a step leaves, as named tensors: losses, expert counts, gradients, norm, state, data position; whole, and as
// the parts of it that one rank has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/tensor.h"
#include "trainer/gradient_sum.h"
#include "trainer/rank_links.h"
#include "trainer/train_state.h"
#include "trainer/train_step.h"

namespace shoestring {

// One tensor of the whole model and world. `kind` and `name` together are unique.
struct StepTensor {
  std::string kind;  // "loss", "expert_counts", "gradient", "grad_norm", "weights", "exp_avg", ..., "position"
  std::string name;  // of the parameter, or of the layer's bias; may be empty
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  int64_t elements() const;
  std::string full_name() const;  // "gradient.model.norm.weight"
};

// In the order in which a step makes them: losses, expert counts, gradients in the order of the parameter table, their
// norm, the state in that order (of each parameter weights or bias, moments, average), the position. The same on every
// rank and layout.
std::vector<StepTensor> ListStepTensors(const TrainState& state);

// Elements [first, first + view.elements()) of tensor `tensor` of that list; the view is contiguous host memory.
struct TensorPart {
  int tensor = 0;
  int64_t first = 0;
  ConstView view;
};

// What one rank has after a step. Views are valid until its next step.
struct StepParts {
  std::vector<TensorPart> kept;    // all
  std::vector<TensorPart> spoken;  // each element of the world on exactly one rank
};

// What is on the host has to be kept somewhere while parts point at it.
struct StepScalars {
  std::vector<double> losses;
  double grad_norm = 0;
  std::vector<int64_t> position;
  std::deque<std::vector<std::byte>> copies;  // of what lies in a device's memory
};

// `result` and `gradient` are those of the step that made `state` what it is; `scalars` is filled, and like them it is
// pointed at by the parts.
StepParts PartsOfStep(const TrainState& state, Backend& backend, Stream& stream, const RankLinks& links,
                      const StepResult& result, const Gradient& gradient, StepScalars& scalars);

}  // namespace shoestring
