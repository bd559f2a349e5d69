// The end of a step: gradient norm, clipping, AdamW, moving average (V3 report, section 4.2).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "configs/schema/train.pb.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "trainer/gradient_sum.h"
#include "trainer/held.h"
#include "trainer/rank_links.h"
#include "trainer/train_state.h"

namespace shoestring {

// Norm of the whole gradient. Squares are summed in double over blocks of 2^20 elements that lie inside one matrix of a
// stack, each by the rank that sums the block's gradients, and block sums are added in the order of the whole table:
// the same on any layout.
class GradientNorm {
 public:
  // Allocates room for the block sums. `held` must outlive this object.
  GradientNorm(Arena& arena, const HeldTable& held);

  // Every rank calls it; all get the same. Ends with a Synchronize. Errors: a communicator's.
  absl::StatusOr<double> Compute(Backend& backend, Stream& stream, const Gradient& gradient, const RankLinks& links);
  // Of the last Compute, in the order of the whole table.
  absl::Span<const double> block_sums() const { return host_sums_; }

 private:
  const HeldTable& held_;
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

// Updates every trained parameter, its moments, average and copies: what is kept here, then what others keep is
// gathered. Errors: a communicator's.
absl::Status UpdateParameters(Backend& backend, Stream& stream, const OptimizerSettings& settings,
                              const Gradient& gradient, TrainState& state, const RankLinks& links);

}  // namespace shoestring
