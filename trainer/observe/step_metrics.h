// What is known about a step when it is over: one row of metrics.jsonl, one table of columns for all that read or write
// it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/file_system.h"
#include "kernels/timing_backend.h"

namespace shoestring {

// Absent values are not known (or not finite). Units are in the names; losses in nats a token.
struct StepMetrics {
  int64_t step = 0;        // steps done in the whole run when this was measured
  int64_t generation = 0;  // 0 for the first start of the run, plus 1 a resume

  std::optional<double> loss, loss_mtp, loss_balance, val_loss, val_bits_per_byte;
  std::optional<double> grad_norm, lr, bias_speed, mtp_weight;
  std::optional<double> tokens, consumed_tokens;
  std::optional<double> step_time_s, data_wait_s, forward_s, backward_s, optimizer_s, val_time_s;
  std::optional<double> bubble_frac, exposed_comm_s;  // of rank 0, where there are others
  std::optional<double> tokens_per_sec, tokens_per_sec_per_rank, tflops_per_rank, gemm_flops_share, gemm_peak_share;
  std::optional<double> gemm_peak_gflops;
  std::optional<double> mem_peak_gib;
  std::optional<double> max_over_mean_load, bias_abs_max, dropped;
  std::optional<double> skipped_steps_total, elapsed_s, cpu_hours, eta_s;  // elapsed_s: of all starts of the run

  std::vector<int> moe_layers;        // layer number of each entry of layer_loads
  std::vector<double> layer_loads;    // max over mean of the expert loads of a layer
  std::optional<TimeBreakdown> time;  // of the step, when the backend was timed
};

struct MetricColumn {
  const char* key;  // in metrics.jsonl
  const char* tag;  // in TensorBoard
  bool is_integer;
  std::optional<double> StepMetrics::*value;
};
// In the order of the file.
absl::Span<const MetricColumn> MetricColumns();

// One line, newline included: a JSON object of what is known.
std::string ToJsonLine(const StepMetrics& row);
// Unknown keys are ignored, values of an unexpected type are absent. INVALID_ARGUMENT when it is not an object with a
// step.
absl::StatusOr<StepMetrics> ParseJsonLine(absl::string_view line);

struct MetricsFile {
  std::vector<StepMetrics> rows;  // steps strictly ascending
  int64_t skipped_lines = 0;      // that were no rows; a torn last line is not counted
};

inline constexpr int64_t kMaxMetricsBytes = int64_t{16} << 30;  // a million steps have about one GiB
// Lines of one step are one row, whatever their generation: a validation that came later knows nothing else of the
// step. A line of an earlier step than the line before it is what a resumed run wrote again: it replaces the rows from
// its step on. NOT_FOUND without a file; DATA_LOSS for more than kMaxMetricsBytes.
absl::StatusOr<MetricsFile> ReadMetrics(FileSystem& fs, const std::string& path);
MetricsFile ParseMetrics(absl::string_view text);
// What is known last: of each value the one of the newest row that has it. Absent without rows.
std::optional<StepMetrics> NewestValues(const MetricsFile& file);

}  // namespace shoestring
