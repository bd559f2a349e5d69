// The directory that checkpoints lie in: their names, LATEST, leftovers of dead runs, removal of old ones.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"

namespace shoestring {

inline constexpr absl::string_view kLatestName = "LATEST";

std::string StepName(int64_t step);                         // "step_0000100"
std::optional<int64_t> StepOfName(absl::string_view name);  // nothing for any other name
std::string StepPath(const std::string& directory, int64_t step);

// What lies in a directory of checkpoints. Files of other names are ignored.
struct DirectoryListing {
  std::vector<int64_t> steps;          // whole checkpoints by their names, rising
  std::vector<std::string> leftovers;  // of saves and removals that did not end
  std::vector<std::string> replaced;   // checkpoints whose step was saved again with another state
};
// An absent directory is an empty one.
absl::StatusOr<DirectoryListing> ListDirectory(FileSystem& fs, const std::string& directory);

// The step that LATEST names; nothing if there is no LATEST. DATA_LOSS if it names no step.
absl::StatusOr<std::optional<int64_t>> ReadLatest(FileSystem& fs, const std::string& directory);
absl::Status WriteLatest(FileSystem& fs, const std::string& directory, int64_t step);

// The first of PATH.SUFFIX-0, PATH.SUFFIX-1, ... that does not exist.
absl::StatusOr<std::string> FreeName(FileSystem& fs, const std::string& path, absl::string_view suffix);

// To be called when a run starts, before its first save; no other run may use the directory.
absl::Status RemoveLeftovers(FileSystem& fs, const std::string& directory);

// Moves the checkpoint of this step aside, so that another of the same step can be put there. LATEST never names a
// step that is not there: it goes back first.
absl::Status SetAside(FileSystem& fs, const std::string& directory, int64_t step);

// Keeps the newest `keep` checkpoints up to the one that LATEST names; 0: all. To be called after a save. Steps beyond
// LATEST are left alone. Returns the steps removed. FAILED_PRECONDITION, and nothing is removed, when the one that
// LATEST names cannot be opened.
absl::StatusOr<std::vector<int64_t>> PruneCheckpoints(FileSystem& fs, const std::string& directory, int keep);

}  // namespace shoestring
