// Observes a training run: turns what the loop tells into rows of metrics and hands them to the sinks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "kernels/timing_backend.h"
#include "trainer/observe/metrics_sink.h"
#include "trainer/observe/progress_line.h"
#include "trainer/observe/run_facts.h"
#include "trainer/train_loop.h"

namespace shoestring {

struct ObserveOptions {
  std::string run_dir;  // exists
  bool tensorboard = true;
  ProgressStyle style;
  ProgressLine::Write write;  // the terminal or log; empty: nothing is printed
  // The peak of the matrix products in GFLOP/s of a rank, measured now. Called between steps: after each of the first
  // few, and after one that was faster than the best so far. Empty: RunFacts::peak_gflops_per_rank is all there is.
  std::function<double()> measure_peak;
  const TimingBackend* timed = nullptr;  // the backend of the trainer, if it is timed; must outlive the observer
};

// Writes RUN_DIR/metrics.jsonl, RUN_DIR/tensorboard/, RUN_DIR/summary.json and the progress. Call order: Open, then
// Trainer::AddObserver, Trainer::Run; then WriteReport.
class RunObserver final : public TrainObserver {
 public:
  // Reads what an earlier start left and cuts it at facts.resumed_step. `fs` and `clock` must outlive the observer.
  static absl::StatusOr<std::unique_ptr<RunObserver>> Open(FileSystem& fs, Clock& clock, const RunFacts& facts,
                                                           const ObserveOptions& options);

  absl::Status OnStart(const TrainState& state) override;
  absl::Status OnStep(const StepResult& result) override;
  absl::Status OnValidation(const ValidationResult& result) override;
  absl::Status OnCheckpointDue(const TrainState& state) override;
  void OnCheckpointSaved() override { ForgetTimes(); }
  void OnEnd(const absl::Status& status, std::optional<StopReason> reason) override;

  // Of writing the end of the files, which OnEnd cannot return.
  const absl::Status& end_status() const { return end_status_; }

 private:
  RunObserver(Clock& clock, const RunFacts& facts, const ObserveOptions& options);

  StepMetrics RowOf(const StepResult& result);
  void AddRates(const StepResult& result, StepMetrics& row);
  void ImprovePeak(double step_gflops);
  void AddProgress(StepMetrics& row);
  void AddTotals(StepMetrics& row);
  absl::Status Emit(const StepMetrics& row);
  absl::Status EmitPending();
  // What the backend did since the last step belongs to none.
  void ForgetTimes();
  bool ValidationFollows(int64_t step) const;

  Clock& clock_;
  const RunFacts facts_;
  const TimingBackend* const timed_;
  const std::function<double()> measure_peak_;
  double peak_gflops_;         // of a rank; the best so far
  int peak_measurements_ = 0;  // of measure_peak_
  std::vector<std::unique_ptr<MetricsSink>> sinks_;
  const double start_s_;
  double previous_s_;
  double earlier_s_ = 0;  // of earlier starts
  double earlier_hours_ = 0;
  double skipped_steps_ = 0;   // of earlier starts; this trainer skips none: it stops instead
  double seconds_a_step_ = 0;  // smoothed, everything included
  TimeBreakdown previous_time_;
  ExpertLoads loads_;
  std::optional<StepMetrics> pending_;  // a row that waits for its validation
  absl::Status end_status_;
};

// The largest resident size of this process so far; 0 when the system does not say.
int64_t PeakResidentBytes();

}  // namespace shoestring
