// Bodies: names, the lock, the attempts.
#include "launch/run_directory.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "configs/print.h"

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

absl::StatusOr<std::unique_ptr<RunLock>> RunLock::Take(const std::string& run_directory) {
  FileSystem& fs = PosixFileSystem();
  auto lock = std::unique_ptr<RunLock>(new RunLock());
  std::string path(WithoutTrailingSlashes(run_directory));
  for (; !Exists(fs, path) && path != DirName(path); path = DirName(path)) lock->made_.push_back(path);
  constexpr int kTries = 5;  // another process may give the directory up between our making it and taking its lock
  absl::StatusOr<std::unique_ptr<FileLock>> taken;
  for (int i = 0; i < kTries && (i == 0 || absl::IsNotFound(taken.status())); ++i) {
    RETURN_IF_ERROR(fs.CreateDirectories(run_directory));
    taken =
        FileLock::Take(JoinPath(run_directory, "lock"), run_directory, "wait for it to end, or name another --run-dir");
  }
  RETURN_IF_ERROR(taken.status());
  lock->lock_ = *std::move(taken);
  return lock;
}

RunLock::~RunLock() {
  lock_.reset();
  // Fails, as it should, for a directory that has something in it.
  for (const std::string& directory : made_) PosixFileSystem().Remove(directory).IgnoreError();
}

bool HoldsRun(FileSystem& fs, const std::string& run_directory) { return Exists(fs, ConfigPath(run_directory)); }

absl::StatusOr<int64_t> BeginAttempt(FileSystem& fs, const std::string& run_directory) {
  int64_t generation = 0;
  while (Exists(fs, JoinPath(run_directory, AttemptName(generation)))) ++generation;
  RETURN_IF_ERROR(fs.CreateDirectories(JoinPath(JoinPath(run_directory, AttemptName(generation)), "logs")));
  return generation;
}

}  // namespace shoestring
