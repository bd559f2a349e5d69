// Writes metrics.jsonl: a line a step, handed to the system at once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "trainer/observe/metrics_sink.h"

namespace shoestring {

class MetricsLog final : public MetricsSink {
 public:
  // Cuts what a run that is resumed at `resumed_step` will write again: whole lines of later steps, and a torn last
  // line. 0 starts the file anew.
  static absl::StatusOr<std::unique_ptr<MetricsLog>> Open(FileSystem& fs, const std::string& path,
                                                          int64_t resumed_step);

  // The last row that was kept, if any: totals continue from it.
  const std::optional<StepMetrics>& last_row() const { return last_row_; }

  absl::Status OnRow(const StepMetrics& row) override;
  absl::Status OnEnd(const RunEnd& end) override;  // makes the file durable

 private:
  MetricsLog(std::unique_ptr<WritableFile> file, std::optional<StepMetrics> last_row)
      : file_(std::move(file)), last_row_(std::move(last_row)) {}

  std::unique_ptr<WritableFile> file_;
  std::optional<StepMetrics> last_row_;
};

}  // namespace shoestring
