// The line of progress, for a terminal and for a log.
#include "trainer/observe/progress_line.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace shoestring {
namespace {

constexpr const char* kBold = "\x1b[1m";
constexpr const char* kDim = "\x1b[2m";
constexpr const char* kPlain = "\x1b[0m";
constexpr const char* kEraseLine = "\r\x1b[K";

std::string Bar(int64_t step, int64_t total, int width) {
  const int64_t filled = total > 0 ? std::clamp<int64_t>(step * width / total, 0, width) : 0;
  return absl::StrCat("[", std::string(filled, '#'), std::string(width - filled, '.'), "]");
}

}  // namespace

ProgressLine::ProgressLine(const RunFacts& facts, const ProgressStyle& style, Clock& clock, Write write)
    : total_steps_(facts.total_steps),
      last_step_(LastStep(facts)),
      log_interval_steps_(facts.log_interval_steps),
      style_(style),
      clock_(clock),
      start_s_(clock.MonotonicSeconds()),
      write_(std::move(write)) {}

std::string ProgressLine::LogLine(const StepMetrics& row, int64_t total_steps, double elapsed_s) {
  std::string line = absl::StrFormat("step: %d/%d", row.step, total_steps);
  const auto add = [&line](const char* key, const std::optional<double>& value, const char* format) {
    if (!value.has_value()) return;
    const auto parsed = absl::ParsedFormat<absl::FormatConversionCharSet::kFloating>::New(format);
    absl::StrAppend(&line, "  ", key, ": ", absl::StrFormat(*parsed, *value));
  };
  add("loss", row.loss, "%.4f");
  add("loss_mtp", row.loss_mtp, "%.4f");
  add("val_loss", row.val_loss, "%.4f");
  add("val_bits_per_byte", row.val_bits_per_byte, "%.4f");
  add("grad_norm", row.grad_norm, "%.3f");
  add("lr", row.lr, "%.3g");
  add("max_over_mean_load", row.max_over_mean_load, "%.2f");
  add("step_time_s", row.step_time_s, row.step_time_s.value_or(1) < 0.1 ? "%.3g" : "%.3f");  // three digits at least
  add("tokens_per_sec", row.tokens_per_sec, "%.0f");
  add("tflops_per_rank", row.tflops_per_rank, "%.4f");
  if (row.gemm_peak_share.has_value()) absl::StrAppendFormat(&line, "  peak: %.1f%%", 100.0 * *row.gemm_peak_share);
  absl::StrAppend(&line, "  elapsed: ", HumanSeconds(elapsed_s));
  if (row.eta_s.has_value()) absl::StrAppend(&line, "  left: ", HumanSeconds(*row.eta_s));
  return line;
}

std::string ProgressLine::TerminalLine(const StepMetrics& row, double elapsed_s) const {
  std::string line = absl::StrFormat("%s %d/%d", Bar(row.step, last_step_, 16), row.step, last_step_);
  if (row.loss.has_value()) absl::StrAppendFormat(&line, "  loss %.4f", *row.loss);
  if (val_loss_.has_value()) absl::StrAppendFormat(&line, "  val %.4f", *val_loss_);
  if (row.lr.has_value()) absl::StrAppendFormat(&line, "  lr %.2e", *row.lr);
  if (row.tokens_per_sec.has_value()) absl::StrAppend(&line, "  ", HumanCount(*row.tokens_per_sec), " tok/s");
  if (row.gemm_peak_share.has_value()) absl::StrAppendFormat(&line, "  %.0f%% of peak", 100.0 * *row.gemm_peak_share);
  absl::StrAppend(&line, "  ", HumanSeconds(elapsed_s));
  if (row.eta_s.has_value()) absl::StrAppend(&line, ", ", HumanSeconds(*row.eta_s), " left");
  const auto room = static_cast<size_t>(std::max(20, style_.columns - 1));
  if (line.size() > room) line.resize(room);
  return line;
}

absl::Status ProgressLine::OnRow(const StepMetrics& row) {
  const double elapsed_s = clock_.MonotonicSeconds() - start_s_;
  if (row.val_loss.has_value()) val_loss_ = row.val_loss;
  if (!style_.is_terminal) {
    const bool due = row.step % log_interval_steps_ == 0 || row.step == last_step_ || row.val_loss.has_value();
    if (due) write_(LogLine(row, total_steps_, elapsed_s) + "\n");
    return absl::OkStatus();
  }
  if (row.val_loss.has_value()) {
    std::string line = absl::StrFormat("step %d  validation %.4f nats/token", row.step, *row.val_loss);
    if (row.val_bits_per_byte.has_value()) absl::StrAppendFormat(&line, ", %.4f bits/byte", *row.val_bits_per_byte);
    write_(absl::StrCat(kEraseLine, style_.color ? kBold : "", line, style_.color ? kPlain : "", "\n"));
  }
  if (row.loss.has_value()) {
    const std::string line = TerminalLine(row, elapsed_s);
    const size_t bar = std::min(line.find(']') + 1, line.size());
    write_(style_.color ? absl::StrCat(kEraseLine, kDim, line.substr(0, bar), kPlain, line.substr(bar))
                        : absl::StrCat(kEraseLine, line));
    line_open_ = true;
  }
  return absl::OkStatus();
}

absl::Status ProgressLine::OnEnd(const RunEnd& end) {
  write_(absl::StrCat(line_open_ ? "\n" : "", "end: ", end.exit_reason,
                      "  elapsed: ", HumanSeconds(clock_.MonotonicSeconds() - start_s_), "\n"));
  line_open_ = false;
  return absl::OkStatus();
}

}  // namespace shoestring
