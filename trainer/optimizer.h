// The end of a step: gradient norm, clipping, AdamW, moving average (V3 report, section 4.2).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "configs/schema/train.pb.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "trainer/accumulate.h"
#include "trainer/train_state.h"

namespace shoestring {

// Norm of the whole gradient. Squares are summed in double over blocks of 2^20 elements that lie inside one matrix of a
// stack, block sums in table order: the same on any layout that holds whole blocks.
class GradientNorm {
 public:
  // Allocates room for the block sums. `table` must outlive this object.
  GradientNorm(Arena& arena, const std::vector<Parameter>& table);

  // Uses use 0 of each parameter. Ends with a Synchronize.
  double Compute(Backend& backend, Stream& stream, const GradientSet& gradients);
  // Of the last Compute, in table order.
  absl::Span<const double> block_sums() const { return host_sums_; }

 private:
  const std::vector<Parameter>& table_;
  View sums_;  // [1, blocks] f64
  std::vector<double> host_sums_;
};

// Factor that brings a gradient of norm `norm` to at most `clip_norm`; clip_norm 0: never.
double ClipScale(double norm, double clip_norm);

struct OptimizerSettings {
  config::AdamWConfig adamw;
  double learning_rate = 0;
  double grad_scale = 1;  // clipping
  double ema_decay = -1;  // below 0: no average
  int64_t step = 1;       // counted from 1 over the whole run
};

// Updates every trained parameter, its copies, moments and average. Allocates nothing.
void UpdateParameters(Backend& backend, Stream& stream, const OptimizerSettings& settings, const GradientSet& gradients,
                      const TrainState& state);

}  // namespace shoestring
