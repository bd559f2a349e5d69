// Bodies: looks at what lies there.
#include "launch/checkpoint_place.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "configs/load.h"
#include "launch/run_directory.h"
#include "trainer/checkpoint/directory.h"

namespace shoestring {

absl::StatusOr<std::string> CheckpointsAt(FileSystem& fs, const std::string& place) {
  RETURN_IF_ERROR(fs.Stat(place).status());
  if (!HoldsRun(fs, place)) return place;
  ASSIGN_OR_RETURN(const config::LoadedConfig loaded, config::LoadConfig(fs, {ConfigPath(place)}, {}));
  return CheckpointDirectory(place, loaded.config);
}

absl::StatusOr<std::string> CheckpointAt(FileSystem& fs, const std::string& place) {
  RETURN_IF_ERROR(fs.Stat(place).status());
  if (StepOfName(BaseName(place)).has_value()) return place;
  ASSIGN_OR_RETURN(const std::string directory, CheckpointsAt(fs, place));
  ASSIGN_OR_RETURN(const std::optional<int64_t> latest, ReadLatest(fs, directory));
  if (latest.has_value()) return StepPath(directory, *latest);
  ASSIGN_OR_RETURN(const DirectoryListing listing, ListDirectory(fs, directory));
  if (!listing.steps.empty()) return StepPath(directory, listing.steps.back());
  return absl::NotFoundError(
      absl::StrCat(directory, ": holds no checkpoint; name a run directory, or a checkpoint (step_...) itself"));
}

}  // namespace shoestring
