// From the loop's events to rows.
#include "trainer/observe/run_observer.h"

#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "trainer/observe/metrics_log.h"
#include "trainer/observe/summary.h"
#include "trainer/observe/tensorboard_log.h"

namespace shoestring {
namespace {

constexpr int kPeakMeasurements = 5;  // after as many first steps
constexpr double kSmoothing = 0.1;    // weight of the newest step in the time a step takes

RunEnd EndOf(const absl::Status& status, std::optional<StopReason> reason) {
  if (!status.ok()) return {absl::StrCat("failed: ", status.message()), true};
  if (!reason.has_value()) return {"failed: no reason was given", true};
  switch (*reason) {
    case StopReason::kFinished: return {"finished", false};
    case StopReason::kRequested: return {"stopped on request", false};
    case StopReason::kStepLimit: return {"step limit", false};
  }
  return {"unknown", true};
}

}  // namespace

int64_t PeakResidentBytes() {
  struct rusage usage = {};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return usage.ru_maxrss * 1024;  // Linux counts in KiB
}

absl::StatusOr<std::unique_ptr<RunObserver>> RunObserver::Open(FileSystem& fs, Clock& clock, const RunFacts& facts,
                                                               const ObserveOptions& options) {
  auto observer = std::unique_ptr<RunObserver>(new RunObserver(clock, facts, options));
  ASSIGN_OR_RETURN(std::unique_ptr<MetricsLog> log,
                   MetricsLog::Open(fs, JoinPath(options.run_dir, "metrics.jsonl"), facts.resumed_step));
  const MetricsFile before = log->TakeKept();
  if (const std::optional<StepMetrics> newest = NewestValues(before); newest.has_value()) {
    observer->earlier_s_ = newest->elapsed_s.value_or(0);
    observer->earlier_hours_ = newest->cpu_hours.value_or(0);
    observer->skipped_steps_ = newest->skipped_steps_total.value_or(0);
  }
  observer->sinks_.push_back(std::move(log));
  if (options.tensorboard) {
    ASSIGN_OR_RETURN(std::unique_ptr<TensorBoardLog> events,
                     TensorBoardLog::Open(fs, JoinPath(options.run_dir, "tensorboard"), facts.resumed_step,
                                          facts.generation, clock));
    observer->sinks_.push_back(std::move(events));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<SummaryWriter> summary,
                   SummaryWriter::Open(fs, options.run_dir, facts, before, clock));
  observer->sinks_.push_back(std::move(summary));
  if (options.write) {
    observer->sinks_.push_back(std::make_unique<ProgressLine>(facts, options.style, clock, options.write));
  }
  return observer;
}

RunObserver::RunObserver(Clock& clock, const RunFacts& facts, const ObserveOptions& options)
    : clock_(clock),
      facts_(facts),
      timed_(options.timed),
      measure_peak_(options.measure_peak),
      peak_gflops_(facts.peak_gflops_per_rank),
      start_s_(clock.MonotonicSeconds()),
      previous_s_(start_s_) {}

absl::Status RunObserver::OnStart(const TrainState&) {
  // What was timed before, such as the initialisation, belongs to no step.
  if (timed_ != nullptr) previous_time_ = timed_->times();
  previous_s_ = clock_.MonotonicSeconds();
  return absl::OkStatus();
}

absl::Status RunObserver::OnStep(const StepResult& result) {
  RETURN_IF_ERROR(EmitPending());
  StepMetrics row = RowOf(result);
  loads_.layers = result.moe_layers;
  loads_.counts = result.expert_counts;
  for (const std::unique_ptr<MetricsSink>& sink : sinks_) sink->OnLoads(loads_);
  if (!ValidationFollows(row.step)) return Emit(row);
  pending_ = std::move(row);
  return absl::OkStatus();
}

StepMetrics RunObserver::RowOf(const StepResult& result) {
  StepMetrics row;
  row.step = result.position.step;
  row.generation = facts_.generation;
  row.loss = result.loss;
  if (result.plan.mtp_weight > 0) row.loss_mtp = result.loss_mtp;
  row.grad_norm = result.grad_norm;
  row.lr = result.plan.learning_rate;
  if (!result.moe_layers.empty()) {
    row.loss_balance = result.loss_balance;
    row.max_over_mean_load = result.mean_max_over_mean_load;
    row.bias_speed = result.plan.bias_speed;
    row.bias_abs_max = result.bias_abs_max;
    row.dropped = 0;  // the architecture drops no token
    row.moe_layers = result.moe_layers;
    row.layer_loads = result.max_over_mean_load;
  }
  row.mtp_weight = result.plan.mtp_weight;
  row.tokens = static_cast<double>(result.plan.tokens);
  row.consumed_tokens = static_cast<double>(result.position.tokens);
  row.step_time_s = result.times.total_s;
  row.data_wait_s = result.times.data_wait_s;
  if (result.shares.step_s > 0) {
    row.bubble_frac = result.shares.bubble_s / result.shares.step_s;
    row.exposed_comm_s = result.shares.exposed_s;
  }
  if (facts_.device == "CPU") {  // others have not finished when a call returns; only the whole step is known
    row.forward_s = result.times.forward_s;
    row.backward_s = result.times.backward_s;
    row.optimizer_s = result.times.optimizer_s;
  }
  if (timed_ != nullptr) {
    row.time = timed_->times().Since(previous_time_);
    previous_time_ = timed_->times();
  }
  row.skipped_steps_total = skipped_steps_;
  AddRates(result, row);
  AddProgress(row);
  return row;
}

// One measurement at the start says too little where others use the machine at that moment: steps would seem to run at
// more than the peak. So the peak is the best of several, spread over the first steps, and again wherever a step beats
// it. What a step itself reached is a rate that this machine can do: no share is ever above 1.
void RunObserver::ImprovePeak(double step_gflops) {
  if (measure_peak_ && (peak_measurements_ < kPeakMeasurements || step_gflops > peak_gflops_)) {
    peak_gflops_ = std::max(peak_gflops_, measure_peak_());
    ++peak_measurements_;
  }
  if (peak_gflops_ > 0) peak_gflops_ = std::max(peak_gflops_, step_gflops);
}

void RunObserver::AddRates(const StepResult& result, StepMetrics& row) {
  const double seconds = result.times.total_s;
  const double flops = static_cast<double>(result.work.gemm_flops + result.work.attention_flops);
  if (flops > 0) row.gemm_flops_share = static_cast<double>(result.work.gemm_flops) / flops;
  if (seconds <= 0) return;
  row.tokens_per_sec = static_cast<double>(result.plan.tokens) / seconds;
  row.tokens_per_sec_per_rank = *row.tokens_per_sec / facts_.ranks;
  row.tflops_per_rank = flops / seconds * 1e-12;  // the counters are this rank's own
  const double gflops = 1e3 * *row.tflops_per_rank;
  ImprovePeak(gflops);
  if (peak_gflops_ <= 0) return;
  row.gemm_peak_gflops = peak_gflops_;
  row.gemm_peak_share = gflops / peak_gflops_;
}

void RunObserver::AddProgress(StepMetrics& row) {
  const int64_t peak_bytes = PeakResidentBytes();
  if (peak_bytes > 0) row.mem_peak_gib = static_cast<double>(peak_bytes) / (1 << 30);
  const double now_s = clock_.MonotonicSeconds();
  const double took_s = now_s - previous_s_;
  previous_s_ = now_s;
  const bool is_first = seconds_a_step_ == 0;
  seconds_a_step_ = is_first ? took_s : (1 - kSmoothing) * seconds_a_step_ + kSmoothing * took_s;
  AddTotals(row);
  row.eta_s = static_cast<double>(std::max<int64_t>(0, LastStep(facts_) - row.step)) * seconds_a_step_;
}

void RunObserver::AddTotals(StepMetrics& row) {
  const double elapsed_s = clock_.MonotonicSeconds() - start_s_;
  row.elapsed_s = earlier_s_ + elapsed_s;
  if (facts_.device == "CPU") {
    row.cpu_hours = earlier_hours_ + elapsed_s / 3600.0 * facts_.ranks * facts_.threads_per_rank;
  }
}

// As the loop does it: at the interval, and at the end of the run.
bool RunObserver::ValidationFollows(int64_t step) const {
  const int64_t interval = facts_.validation_interval_steps;
  return interval > 0 && (step % interval == 0 || step == LastStep(facts_));
}

absl::Status RunObserver::OnValidation(const ValidationResult& result) {
  StepMetrics row;
  if (pending_.has_value() && pending_->step == result.step) {
    row = *std::exchange(pending_, std::nullopt);
  } else {
    AddTotals(row);  // a line of its own, which the next start may have to continue from
  }
  row.step = result.step;
  row.generation = facts_.generation;
  row.val_loss = result.nats_per_token;
  if (result.bits_per_byte > 0) row.val_bits_per_byte = result.bits_per_byte;
  row.val_time_s = result.seconds;
  ForgetTimes();
  return Emit(row);
}

absl::Status RunObserver::OnCheckpointDue(const TrainState&) {
  RETURN_IF_ERROR(EmitPending());
  for (const std::unique_ptr<MetricsSink>& sink : sinks_) RETURN_IF_ERROR(sink->OnCheckpointDue());
  return absl::OkStatus();
}

void RunObserver::ForgetTimes() {
  if (timed_ != nullptr) previous_time_ = timed_->times();
}

absl::Status RunObserver::Emit(const StepMetrics& row) {
  for (const std::unique_ptr<MetricsSink>& sink : sinks_) RETURN_IF_ERROR(sink->OnRow(row));
  return absl::OkStatus();
}

absl::Status RunObserver::EmitPending() {
  if (!pending_.has_value()) return absl::OkStatus();
  return Emit(*std::exchange(pending_, std::nullopt));
}

void RunObserver::OnEnd(const absl::Status& status, std::optional<StopReason> reason) {
  end_status_ = EmitPending();
  const RunEnd end = EndOf(status, reason);
  for (const std::unique_ptr<MetricsSink>& sink : sinks_) end_status_.Update(sink->OnEnd(end));
}

}  // namespace shoestring
