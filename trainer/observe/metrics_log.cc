// Appending to metrics.jsonl, and cutting it where a resumed run begins.
#include "trainer/observe/metrics_log.h"

#include <utility>

#include "base/status_macros.h"

namespace shoestring {
namespace {

// Bytes of the lines that stay: up to the first line of a later step, or to the last line end.
size_t KeptBytes(absl::string_view text, int64_t resumed_step) {
  size_t kept = 0;
  while (true) {
    const size_t end = text.find('\n', kept);
    if (end == absl::string_view::npos) return kept;
    const absl::StatusOr<StepMetrics> row = ParseJsonLine(text.substr(kept, end - kept));
    if (row.ok() && row->step > resumed_step) return kept;
    kept = end + 1;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(FileSystem& fs, const std::string& path,
                                                             int64_t resumed_step) {
  MetricsFile before;
  absl::StatusOr<std::string> text = ReadFile(fs, path, kMaxMetricsBytes);
  if (!text.ok() && !absl::IsNotFound(text.status())) return text.status();
  if (text.ok()) {
    const size_t kept = resumed_step > 0 ? KeptBytes(*text, resumed_step) : 0;
    if (kept < text->size()) RETURN_IF_ERROR(fs.Truncate(path, static_cast<int64_t>(kept)));
    before = ParseMetrics(absl::string_view(*text).substr(0, kept));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs.OpenForAppend(path));
  return std::unique_ptr<MetricsLog>(new MetricsLog(std::move(file), std::move(before)));
}

absl::Status MetricsLog::OnRow(const StepMetrics& row) { return file_->Append(ToJsonLine(row)); }

absl::Status MetricsLog::OnEnd(const RunEnd&) {
  RETURN_IF_ERROR(file_->Sync());
  return file_->Close();
}

}  // namespace shoestring
