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

// An advisory lock on RUN_DIR/lock; given back, and the file removed, when the object goes; given back when the process
// dies, however it dies.
class RunLock {
 public:
  // Creates the directory; if nothing was written there until the object goes, it removes what it created. UNAVAILABLE,
  // with the process that has it, when another one does.
  static absl::StatusOr<std::unique_ptr<RunLock>> Take(const std::string& run_directory);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  RunLock() = default;
  std::vector<std::string> made_;  // directories, the innermost first
  std::unique_ptr<FileLock> lock_;
};

// Whether a run was started there: it has a config.
bool HoldsRun(FileSystem& fs, const std::string& run_directory);

// Makes the directory of the next start, attempt_NNN/logs, and returns its number, counted from 0.
absl::StatusOr<int64_t> BeginAttempt(FileSystem& fs, const std::string& run_directory);

}  // namespace shoestring
