// report.html: one file without script or network that shows a run.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "base/file_system.h"
#include "trainer/observe/step_metrics.h"
#include "trainer/observe/summary.h"
#include "trainer/observe/timeline.h"

namespace shoestring {

// The page, from what lies in a run directory.
std::string RenderReport(const Summary& summary, const MetricsFile& metrics,
                         const std::optional<Timeline>& timeline = std::nullopt);

// Reads RUN_DIR/metrics.jsonl and RUN_DIR/summary.json, writes RUN_DIR/report.html. Can be called again at any time,
// also while the run is under way or after it died; a page that cannot be written leaves the one before.
absl::Status WriteReport(FileSystem& fs, const std::string& run_dir);

}  // namespace shoestring
