// Where rows of metrics go: a file, TensorBoard, the terminal, the summary.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "trainer/observe/step_metrics.h"

namespace shoestring {

// Tokens that chose each expert in one step.
struct ExpertLoads {
  std::vector<int> layers;
  std::vector<std::vector<int64_t>> counts;  // [layer][expert]
};

struct RunEnd {
  std::string exit_reason;  // "finished", "stopped on request", "step limit" or "failed: ..."
  bool failed = false;
};

class MetricsSink {
 public:
  virtual ~MetricsSink() = default;
  // Once a step, in order. A validation that was not announced by the interval comes as a further row of the same step
  // with the validation's values and the totals.
  virtual absl::Status OnRow(const StepMetrics& row) = 0;
  virtual void OnLoads(const ExpertLoads&) {}
  // Before each checkpoint: what a resume from it continues must be as durable as it.
  virtual absl::Status OnCheckpointDue() { return absl::OkStatus(); }
  virtual absl::Status OnEnd(const RunEnd&) { return absl::OkStatus(); }
};

}  // namespace shoestring
