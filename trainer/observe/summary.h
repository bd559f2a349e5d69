// summary.json: how a run ended, what it reached, and what a report needs besides the metrics.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "trainer/observe/metrics_sink.h"
#include "trainer/observe/run_facts.h"

namespace shoestring {

struct Summary {
  std::string name;
  std::string device;
  std::string instruction_set;          // that computed the last step
  std::string exit_reason = "running";  // see RunEnd
  int64_t generation = 0;
  int64_t steps = 0;
  int64_t total_steps = 0;
  double tokens = 0;
  double wall_time_s = 0;     // of all starts of the run; time that a crash threw away is not in it
  double tokens_per_sec = 0;  // mean over the steps of the last start that took any; no validation, no checkpoints
  double cpu_hours = 0;
  double peak_gflops_per_rank = 0;  // the best that was measured; 0: unknown
  double gemm_peak_share = 0;       // mean rate over those steps as a share of it; 0: unknown
  std::optional<double> final_loss, final_val_loss, final_val_bits_per_byte, best_val_loss;
  std::optional<double> mean_max_over_mean_load;  // over the last 100 steps
  std::optional<double> mem_peak_gib;
  TimeBreakdown time;      // of those steps; all zero if the backend was not timed
  double step_time_s = 0;  // of those steps: what `time` is a share of
  std::string numerics_hash, run_hash;
  std::string parameters, memory_table, data_table, config_text;
  ExpertLoads loads;  // of the last step
};

std::string ToJson(const Summary& summary);
absl::StatusOr<Summary> ParseSummary(absl::string_view json);
absl::StatusOr<Summary> ReadSummary(FileSystem& fs, const std::string& run_dir);
// Brings what a row knows about the whole run up to date: steps, tokens, losses, totals, memory.
void AddRow(const StepMetrics& row, Summary& summary);
// The same with all rows of a run that is under way or was killed: its metrics know more than its summary.
void CatchUp(const MetricsFile& metrics, Summary& summary);

// Writes summary.json at the start (exit reason "running") and durably at the end. What earlier starts reached stays
// until this one has something newer to say: a start that has nothing left to do changes no figure.
class SummaryWriter final : public MetricsSink {
 public:
  // `before`: the metrics so far. `fs` and `clock` must outlive this object.
  static absl::StatusOr<std::unique_ptr<SummaryWriter>> Open(FileSystem& fs, const std::string& run_dir,
                                                             const RunFacts& facts, const MetricsFile& before,
                                                             Clock& clock);

  absl::Status OnRow(const StepMetrics& row) override;
  void OnLoads(const ExpertLoads& loads) override;
  absl::Status OnEnd(const RunEnd& end) override;

 private:
  SummaryWriter(FileSystem& fs, const std::string& run_dir, const RunFacts& facts, Clock& clock);
  void AddStep(const StepMetrics& row);
  void AddLoad(const StepMetrics& row);

  FileSystem& fs_;
  const std::string run_dir_;
  Clock& clock_;
  const std::string instruction_set_;
  const double peak_gflops_;  // measured at the start
  const double start_s_;
  double earlier_wall_s_ = 0;
  bool has_rows_ = false;             // of this start
  bool has_steps_ = false;            // likewise
  double step_tokens_ = 0;            // of the steps of this start
  double gflop_ = 0;                  // of a rank, in the steps of this start
  std::vector<double> recent_loads_;  // ring
  size_t next_load_ = 0;
  Summary summary_;
};

}  // namespace shoestring
