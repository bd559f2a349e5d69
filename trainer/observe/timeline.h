// The step that a run of several ranks recorded, as pictures: what was measured, and what the program would do at the
// same mean costs if nobody waited for more than the schedule makes them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "configs/schema/parallel.pb.h"

namespace shoestring {

struct Timeline {
  int64_t step = 0;
  std::string measured_svg;
  std::string planned_svg;
  double measured_s = 0;  // of the longest position
  double planned_s = 0;
  double measured_bubble = 0;  // shares of the step in which positions do not compute
  double planned_bubble = 0;
  double measured_exposed = 0;  // of the measured share, what they wait for other ranks inside a computation
};

// From the trace files of pipeline 0 in the newest attempt that has any. NOT_FOUND when there are none; DATA_LOSS when
// they are no traces, or do not belong together.
absl::StatusOr<Timeline> ReadTimeline(FileSystem& fs, const std::string& run_directory,
                                      const config::LayoutConfig& layout);

}  // namespace shoestring
