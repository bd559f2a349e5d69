// Where a user's word for a checkpoint leads: a run directory, a directory of checkpoints, or one checkpoint.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/file_system.h"

namespace shoestring {

// The directory of checkpoints at `place`, which is one or belongs to a run. NOT_FOUND, with the remedy.
absl::StatusOr<std::string> CheckpointsAt(FileSystem& fs, const std::string& place);

// One checkpoint: `place` itself, or the newest of a run or of a directory of checkpoints. NOT_FOUND, with the remedy.
absl::StatusOr<std::string> CheckpointAt(FileSystem& fs, const std::string& place);

}  // namespace shoestring
