// Writes metrics.jsonl: a line a step, handed to the system at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

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

  // The rows that were kept, from which a run continues; handed out once.
  MetricsFile TakeKept() { return std::move(kept_); }

  absl::Status OnRow(const StepMetrics& row) override;
  absl::Status OnCheckpointDue() override { return file_->Sync(); }
  absl::Status OnEnd(const RunEnd& end) override;  // makes the file durable

 private:
  MetricsLog(std::unique_ptr<WritableFile> file, MetricsFile kept) : file_(std::move(file)), kept_(std::move(kept)) {}

  std::unique_ptr<WritableFile> file_;
  MetricsFile kept_;
};

}  // namespace shoestring
