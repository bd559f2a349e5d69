// Several runs side by side: a table of text, and a page with their curves over each other.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "trainer/observe/step_metrics.h"
#include "trainer/observe/summary.h"

namespace shoestring {

struct ComparedRun {
  std::string label;  // the directory's name, made unique
  Summary summary;
  MetricsFile metrics;
};

// NOT_FOUND names the file that is absent.
absl::StatusOr<std::vector<ComparedRun>> ReadRuns(FileSystem& fs, const std::vector<std::string>& run_dirs);

// A row a quantity, a column a run; differences of the config at the end. Ends with a newline.
std::string CompareTable(const std::vector<ComparedRun>& runs);
std::string ComparePage(const std::vector<ComparedRun>& runs);

}  // namespace shoestring
