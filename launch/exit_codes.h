// The exit codes that schedulers and scripts act on, and how a failed status becomes one of them.
#pragma once

#include "absl/status/status.h"

namespace shoestring {

enum class ExitCode : int {
  kDone = 0,
  kCheckFailed = 1,   // the check said no
  kUsage = 64,        // the command line
  kBadData = 65,      // shards, tokenizer, checkpoint, text
  kNodeGone = 69,     // retry elsewhere
  kInternal = 70,     // a defect of this program
  kInputOutput = 74,  // disk full, no permission, absent file
  kRestart = 75,      // checkpointed, please start again
  kBadConfig = 78,    // never retry
  kStopped = 79,      // stopped on purpose, do not restart
};

// What a command was reading or writing when a status failed; decides the code together with the status.
enum class Area { kUsage, kConfig, kData, kRun };

// Config problems are 78 and usage problems 64 whatever their status. Elsewhere: INVALID_ARGUMENT, DATA_LOSS,
// OUT_OF_RANGE and FAILED_PRECONDITION are bad data; NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED
// and UNAVAILABLE are the disk's; ABORTED is a stop on purpose; the rest is internal.
ExitCode ExitCodeOf(Area area, const absl::Status& status);

// Prints "shoestring: <message>" to standard error (one line, or for configs one line a problem), with a remedy where a
// refusal of the system came without one; gives the exit code.
int Fail(Area area, const absl::Status& status);

}  // namespace shoestring
