// Bodies of the run's log.
#include "launch/run_log.h"

#include <cstdio>

#include "base/clock.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace shoestring {

absl::StatusOr<std::unique_ptr<RunLog>> RunLog::Create(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs.Create(path));
  return std::unique_ptr<RunLog>(new RunLog(std::move(file)));
}

void RunLog::Line(absl::string_view message) {
  constexpr int kOnlyRank = 0;
  LogInfo(message);
  const std::string line = FormatLogLine(RealClock().WallNanos(), Severity::kInfo, kOnlyRank, message);
  if (file_ != nullptr && !file_->Append(line).ok()) file_.reset();
}

void RunLog::Text(absl::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  if (file_ != nullptr && !file_->Append(text).ok()) file_.reset();
}

}  // namespace shoestring
