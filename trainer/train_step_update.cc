// The second half of a step: what came of the losses, checks, update of parameters and routing biases.
#include <algorithm>
#include <cmath>

#include "absl/types/span.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "trainer/accumulate.h"
#include "trainer/bias_update.h"
#include "trainer/nan_guard.h"
#include "trainer/train_step.h"

namespace shoestring {

absl::Status TrainStep::ReadLosses(const StepPlan& plan, StepResult& result) {
  const int64_t columns = LossColumns(shape_);
  backend_.CopyToHost(stream_, accumulators_.losses, host_losses_.data());
  backend_.Synchronize(stream_);
  const absl::Span<double> column = absl::MakeSpan(loss_column_.data(), plan.micro_batches());
  const auto sum_of = [&](int64_t c, absl::string_view name, double& sum) -> absl::Status {
    for (size_t m = 0; m < column.size(); ++m) column[m] = host_losses_[m * columns + c];
    sum = CanonicalSum(column.data(), plan.lanes, plan.waves);
    return CheckLosses(name, column, plan.waves);
  };
  const double tokens = static_cast<double>(plan.tokens);
  double sum = 0.0;
  RETURN_IF_ERROR(sum_of(0, "loss", sum));
  result.loss = sum / tokens;
  double mtp = 0.0;
  for (int64_t k = 1; k <= shape_.mtp_depth; ++k) {
    RETURN_IF_ERROR(sum_of(k, "loss_mtp", sum));
    mtp += sum / tokens;
  }
  result.loss_mtp = shape_.mtp_depth > 0 ? mtp / static_cast<double>(shape_.mtp_depth) : 0.0;
  result.loss_balance = 0.0;
  for (int64_t c = 1 + shape_.mtp_depth; c < columns; ++c) {
    RETURN_IF_ERROR(sum_of(c, "loss_balance", sum));
    result.loss_balance += sum;
  }
  return absl::OkStatus();
}

void TrainStep::ReadLoads(StepResult& result) {
  const size_t layers = bias_parameters_.size();
  result.moe_layers.resize(layers);
  result.max_over_mean_load.resize(layers);
  result.mean_max_over_mean_load = 0.0;
  if (layers == 0) return;
  backend_.CopyToHost(stream_, counts_, host_all_counts_.data());
  backend_.Synchronize(stream_);
  double sum = 0.0;
  for (size_t i = 0; i < layers; ++i) {
    std::copy_n(host_all_counts_.begin() + i * shape_.experts, shape_.experts, host_counts_[i].begin());
    result.moe_layers[i] = state_.held().whole()[bias_parameters_[i]].layer;
    result.max_over_mean_load[i] = MaxOverMean(host_counts_[i]);
    sum += result.max_over_mean_load[i];
  }
  result.expert_counts = host_counts_;  // of the same sizes after the first step: nothing is allocated
  result.mean_max_over_mean_load = sum / static_cast<double>(layers);
}

absl::Status TrainStep::Update(const StepPlan& plan, StepResult& result) {
  CHECK(has_gradient_);
  const int64_t start = clock_.MonotonicNanos();
  const Gradient& gradient = sum_.gradient();
  has_gradient_ = false;
  ASSIGN_OR_RETURN(result.grad_norm, norm_.Compute(backend_, stream_, gradient, links_));
  if (!std::isfinite(result.grad_norm)) {
    RETURN_IF_ERROR(CheckGradients(backend_, stream_, state_.held(), gradient, norm_.block_sums(), links_, found_));
    return StopOnPurpose("the gradient norm is beyond the range of double; no parameter was changed");
  }
  result.grad_scale = ClipScale(result.grad_norm, train_.clip_norm());
  OptimizerSettings settings;
  settings.adamw = train_.adamw();
  settings.learning_rate = plan.learning_rate;
  settings.grad_scale = result.grad_scale;
  settings.ema_decay = train_.has_ema() ? EmaDecay(train_.ema(), plan.tokens) : -1.0;
  settings.step = state_.position.step + 1;
  RETURN_IF_ERROR(UpdateParameters(backend_, stream_, settings, gradient, state_, links_));
  RETURN_IF_ERROR(UpdateBiases(plan, result));
  backend_.Synchronize(stream_);
  state_.position = schedule_.Advance(state_.position, plan);
  result.position = state_.position;
  result.times.optimizer_s = static_cast<double>(clock_.MonotonicNanos() - start) * 1e-9;
  result.times.total_s += result.times.optimizer_s;
  return absl::OkStatus();
}

// Every rank that holds a layer moves its biases; the first of them says how large they are.
absl::Status TrainStep::UpdateBiases(const StepPlan& plan, StepResult& result) {
  result.bias_abs_max = 0.0;
  if (host_bias_max_.empty()) return absl::OkStatus();
  const bool speaks = links_.replicas->index() == 0;
  std::fill(host_bias_max_.begin(), host_bias_max_.end(), 0.0);
  for (size_t i = 0; i < bias_parameters_.size(); ++i) {
    if (held_biases_[i] < 0) continue;
    const View bias = state_.parameter(held_biases_[i]).master;
    backend_.CopyToHost(stream_, bias, host_bias_.data());
    backend_.Synchronize(stream_);
    UpdateBias(host_counts_[i], plan.bias_speed, absl::MakeSpan(host_bias_));
    backend_.CopyFromHost(stream_, host_bias_.data(), bias);
    backend_.Synchronize(stream_);  // the host's copy is used again
    if (!speaks) continue;
    for (float b : host_bias_) host_bias_max_[i] = std::max(host_bias_max_[i], std::abs(static_cast<double>(b)));
  }
  backend_.CopyFromHost(stream_, host_bias_max_.data(), bias_max_);
  RETURN_IF_ERROR(links_.world->AllReduce(stream_, bias_max_, links_.Named("largest biases")));
  backend_.CopyToHost(stream_, bias_max_, host_bias_max_.data());
  backend_.Synchronize(stream_);
  result.bias_abs_max = *std::max_element(host_bias_max_.begin(), host_bias_max_.end());
  return absl::OkStatus();
}

}  // namespace shoestring
