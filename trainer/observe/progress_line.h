// The terminal: one line that is written over on a terminal, plain `key: value` lines in a log.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "trainer/observe/metrics_sink.h"
#include "trainer/observe/run_facts.h"

namespace shoestring {

struct ProgressStyle {
  bool is_terminal = false;  // may write over its line
  bool color = false;        // of a terminal only; the caller honours NO_COLOR
  int columns = 100;         // of the terminal
};

class ProgressLine final : public MetricsSink {
 public:
  using Write = std::function<void(absl::string_view)>;
  // `clock` must outlive this object. Time counts from here.
  ProgressLine(const RunFacts& facts, const ProgressStyle& style, Clock& clock, Write write);

  absl::Status OnRow(const StepMetrics& row) override;
  absl::Status OnEnd(const RunEnd& end) override;

  // "step: 100/600  loss: 4.321  ..." without a newline.
  static std::string LogLine(const StepMetrics& row, int64_t total_steps, double elapsed_s);

 private:
  std::string TerminalLine(const StepMetrics& row, double elapsed_s) const;

  const int64_t total_steps_;
  const int64_t last_step_;
  const int64_t log_interval_steps_;
  const ProgressStyle style_;
  Clock& clock_;
  const double start_s_;
  const Write write_;
  std::optional<double> val_loss_;  // newest, kept in view
  bool line_open_ = false;
};

}  // namespace shoestring
