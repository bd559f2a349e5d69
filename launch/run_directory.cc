// Bodies: names, the lock, the attempts.
#include "launch/run_directory.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "configs/print.h"
#include "trainer/checkpoint/directory.h"

namespace shoestring {
std::string ConfigPath(const std::string& run_directory) { return JoinPath(run_directory, "config.textproto"); }

std::string CheckpointDirectory(const std::string& run_directory, const config::RunConfig& config) {
  return config.checkpoint().has_directory() ? config.checkpoint().directory() : JoinPath(run_directory, "checkpoints");
}

std::string RunConfigText(const config::RunConfig& config) {
  config::RunConfig resolved = config;
  config::FillDefaults(resolved);
  return absl::StrCat("# numerics ", config::NumericsHash(resolved), "\n# run ", config::RunHash(resolved), "\n",
                      config::CanonicalText(resolved));
}

std::string AttemptName(int64_t generation) { return absl::StrFormat("attempt_%03d", generation); }

absl::StatusOr<std::unique_ptr<RunLock>> RunLock::Take(FileSystem& fs, const std::string& run_directory,
                                                       const std::string& checkpoints) {
  auto lock = std::unique_ptr<RunLock>(new RunLock(fs));
  ASSIGN_OR_RETURN(lock->run_, lock->TakeIn(run_directory, "lock", "wait for it to end, or name another --run-dir"));
  // A name of its own, for both may be one directory.
  ASSIGN_OR_RETURN(lock->checkpoints_, lock->TakeIn(checkpoints, "checkpoints.lock",
                                                    "wait for it to end, or name another checkpoint.directory"));
  return lock;
}

absl::StatusOr<std::unique_ptr<FileLock>> RunLock::TakeIn(const std::string& directory, absl::string_view name,
                                                          absl::string_view remedy) {
  std::vector<std::string> made;
  std::string path(WithoutTrailingSlashes(directory));
  for (; !Exists(fs_, path) && path != DirName(path); path = DirName(path)) made.push_back(path);
  made_.insert(made_.begin(), made.begin(), made.end());
  constexpr int kTries = 5;  // another process may give the directory up between our making it and taking its lock
  absl::StatusOr<std::unique_ptr<FileLock>> taken;
  for (int i = 0; i < kTries && (i == 0 || absl::IsNotFound(taken.status())); ++i) {
    RETURN_IF_ERROR(CreateDirectoriesDurably(fs_, directory));
    taken = FileLock::Take(JoinPath(directory, name), directory, remedy);
  }
  return taken;
}

RunLock::~RunLock() {
  checkpoints_.reset();
  run_.reset();
  // Fails, as it should, for a directory that has something in it.
  for (const std::string& directory : made_) fs_.Remove(directory).IgnoreError();
}

bool HoldsRun(FileSystem& fs, const std::string& run_directory) { return Exists(fs, ConfigPath(run_directory)); }

absl::Status RefuseCheckpoints(FileSystem& fs, const std::string& checkpoints) {
  ASSIGN_OR_RETURN(const DirectoryListing listing, ListDirectory(fs, checkpoints));
  if (listing.steps.empty() && !Exists(fs, JoinPath(checkpoints, kLatestName))) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat(
      checkpoints, ": holds checkpoints already; remove them, or name another --run-dir or checkpoint.directory"));
}

absl::StatusOr<int64_t> BeginAttempt(FileSystem& fs, const std::string& run_directory) {
  int64_t generation = 0;
  while (Exists(fs, JoinPath(run_directory, AttemptName(generation)))) ++generation;
  RETURN_IF_ERROR(CreateDirectoriesDurably(fs, JoinPath(JoinPath(run_directory, AttemptName(generation)), "logs")));
  return generation;
}

}  // namespace shoestring
