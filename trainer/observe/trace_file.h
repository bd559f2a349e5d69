// Trace files: one a rank, written gzipped in the trace event format and read back (docs/formats/trace.md).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "trainer/trace.h"

namespace shoestring {

struct TraceFacts {
  int rank = 0;
  int position = 0;
  int data_index = 0;
  int64_t step = 0;
};

// "RUN_DIR/attempt_000/trace/rank_00000.json.gz".
std::string TraceDirectory(const std::string& attempt_directory);
std::string TracePath(const std::string& trace_directory, int rank);

std::string TraceJson(const TraceFacts& facts, const StepTrace& trace);
// Creates the directory if need be.
absl::Status WriteTrace(FileSystem& fs, const std::string& trace_directory, const TraceFacts& facts,
                        const StepTrace& trace);

// The actions of a file and when they were done, and when the rank waited for calls; in order of time, microseconds.
struct ReadTraceInterval {
  double begin_us = 0;
  double end_us = 0;
};
struct ReadTraceAction {
  Action action;
  double begin_us = 0;
  double end_us = 0;
};
struct ReadTraceFile {
  TraceFacts facts;
  std::vector<ReadTraceAction> actions;
  std::vector<ReadTraceInterval> waits;
};
// DATA_LOSS for what is no such file, naming it; NOT_FOUND without a file.
absl::StatusOr<ReadTraceFile> ReadTrace(FileSystem& fs, const std::string& path);

}  // namespace shoestring
