// The verbs `checkpoint ...`: list, check, prune.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "launch/checkpoint_place.h"
#include "launch/exit_codes.h"
#include "launch/run_directory.h"
#include "launch/verbs.h"
#include "trainer/checkpoint/check.h"
#include "trainer/checkpoint/directory.h"

namespace shoestring {
namespace {

constexpr int kDone = static_cast<int>(ExitCode::kDone);

int RunList(const Values& values) {
  const absl::StatusOr<std::string> directory = CheckpointsAt(PosixFileSystem(), values["place"].as<std::string>());
  if (!directory.ok()) return Fail(Area::kData, directory.status());
  const absl::StatusOr<std::vector<CheckpointSummary>> list = ListCheckpoints(PosixFileSystem(), *directory);
  if (!list.ok()) return Fail(Area::kData, list.status());
  for (const CheckpointSummary& summary : *list) std::printf("%s\n", summary.ToString().c_str());
  if (list->empty()) std::printf("%s: no checkpoint\n", directory->c_str());
  return kDone;
}

int RunCheck(const Values& values) {
  const absl::StatusOr<std::string> path = CheckpointAt(PosixFileSystem(), values["place"].as<std::string>());
  if (!path.ok()) return Fail(Area::kData, path.status());
  const CheckReport report = CheckCheckpoint(PosixFileSystem(), *path);
  std::fputs(report.ToString().c_str(), stdout);
  if (report.ok()) return kDone;
  return Fail(Area::kData,
              absl::DataLossError(absl::StrCat(*path, ": ", report.problems.front(),
                                               "; take another checkpoint ('shoestring checkpoint list')")));
}

int RunPrune(const Values& values) {
  const int keep = values["keep"].as<int>();
  if (keep < 1) {
    return Fail(Area::kUsage, absl::InvalidArgumentError(absl::StrCat("--keep ", keep, ": keep at least 1")));
  }
  const std::string place = values["place"].as<std::string>();
  const absl::StatusOr<std::string> directory = CheckpointsAt(PosixFileSystem(), place);
  if (!directory.ok()) return Fail(Area::kData, directory.status());
  // A trainer that saves at this moment must not find its directory changed.
  const absl::StatusOr<std::unique_ptr<RunLock>> lock = RunLock::Take(place);
  if (!lock.ok()) return Fail(Area::kData, lock.status());
  const absl::StatusOr<std::vector<int64_t>> removed = PruneCheckpoints(PosixFileSystem(), *directory, keep);
  if (!removed.ok()) return Fail(Area::kData, removed.status());
  for (const int64_t step : *removed) std::printf("removed %s\n", StepName(step).c_str());
  return kDone;
}

void DeclarePlace(po::options_description& flags) {
  flags.add_options()("place", po::value<std::string>()->required()->value_name("DIR"),
                      "a run directory, a directory of checkpoints, or one checkpoint");
}

void DeclarePrune(po::options_description& flags) {
  auto add = flags.add_options();
  add("place", po::value<std::string>()->required()->value_name("RUN_DIR"), "a run directory");
  add("keep", po::value<int>()->required()->value_name("N"), "newest checkpoints to keep");
}

}  // namespace

std::vector<Verb> CheckpointVerbs() {
  return {
      {"checkpoint list", "list the checkpoints of a run", "DIR",
       "Reads manifests and sizes, not the tensors.\n\nExample:\n  shoestring checkpoint list runs/first", DeclarePlace,
       "place", RunList},
      {"checkpoint check", "verify every byte of a checkpoint", "DIR",
       "Prints the SHA-256 of the state: two runs are equal to the bit when theirs are. Of a run, the newest\n"
       "checkpoint is checked.\n\n"
       "Example:\n  shoestring checkpoint check runs/first/checkpoints/step_0000100",
       DeclarePlace, "place", RunCheck},
      {"checkpoint prune", "remove old checkpoints of a run", "RUN_DIR --keep N",
       "Example:\n  shoestring checkpoint prune runs/first --keep 1", DeclarePrune, "place", RunPrune},
  };
}

}  // namespace shoestring
