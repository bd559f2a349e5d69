// The directory of one run: who may write to it, and where things lie in it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file_lock.h"
#include "base/file_system.h"
#include "configs/schema/run.pb.h"

namespace shoestring {

std::string ConfigPath(const std::string& run_directory);
// checkpoint.directory of the config, or checkpoints/ in the run directory.
std::string CheckpointDirectory(const std::string& run_directory, const config::RunConfig& config);
// What config.textproto says of a run: its two hashes as comments, then every setting with its default.
std::string RunConfigText(const config::RunConfig& config);
// "attempt_000"
std::string AttemptName(int64_t generation);

// Advisory locks on a run's directory and on that of its checkpoints, which may be anywhere; given back, and the files
// removed, when the object goes; given back when the process dies, however it dies.
class RunLock {
 public:
  // Creates the directories durably, and a synced file in each: whoever has the lock can write there. If nothing else
  // was written there until the object goes, it removes what it created. UNAVAILABLE, with the process that has a
  // directory, when another one does.
  static absl::StatusOr<std::unique_ptr<RunLock>> Take(FileSystem& fs, const std::string& run_directory,
                                                       const std::string& checkpoints);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  explicit RunLock(FileSystem& fs) : fs_(fs) {}
  absl::StatusOr<std::unique_ptr<FileLock>> TakeIn(const std::string& directory, absl::string_view name,
                                                   absl::string_view remedy);

  FileSystem& fs_;
  std::vector<std::string> made_;  // directories, the innermost first
  std::unique_ptr<FileLock> run_, checkpoints_;
};

// Whether a run was started there: it has a config.
bool HoldsRun(FileSystem& fs, const std::string& run_directory);

// ALREADY_EXISTS if checkpoints lie there: a run that begins would replace and remove them.
absl::Status RefuseCheckpoints(FileSystem& fs, const std::string& checkpoints);

// Makes the directory of the next start, attempt_NNN/logs, and returns its number, counted from 0.
absl::StatusOr<int64_t> BeginAttempt(FileSystem& fs, const std::string& run_directory);

}  // namespace shoestring
