// Bodies: names, the lock, the attempts.
#include "launch/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "configs/print.h"

namespace shoestring {
namespace {

std::string HolderOf(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(PosixFileSystem(), path);
  return text.ok() && !text->empty() ? absl::StrCat("process ", absl::StripAsciiWhitespace(*text)) : "another process";
}

}  // namespace

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
  RETURN_IF_ERROR(PosixFileSystem().CreateDirectories(run_directory));
  const std::string path = JoinPath(run_directory, "lock");
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    const std::string what = absl::StrCat("open ", path, ": ", std::strerror(errno));
    return errno == EACCES || errno == EROFS ? absl::PermissionDeniedError(what) : absl::UnavailableError(what);
  }
  auto lock = std::unique_ptr<RunLock>(new RunLock(descriptor));
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    return absl::UnavailableError(
        absl::StrCat(run_directory, ": in use by ", HolderOf(path), "; wait for it to end, or name another --run-dir"));
  }
  const std::string holder = absl::StrCat(getpid(), "\n");
  // Who holds the lock is for people to read; the lock itself does not need it.
  if (ftruncate(descriptor, 0) != 0 || write(descriptor, holder.data(), holder.size()) < 0) {
    return absl::ResourceExhaustedError(absl::StrCat("write ", path, ": ", std::strerror(errno)));
  }
  return lock;
}

RunLock::~RunLock() { close(descriptor_); }

bool HoldsRun(FileSystem& fs, const std::string& run_directory) { return Exists(fs, ConfigPath(run_directory)); }

absl::StatusOr<int64_t> BeginAttempt(FileSystem& fs, const std::string& run_directory) {
  int64_t generation = 0;
  while (Exists(fs, JoinPath(run_directory, AttemptName(generation)))) ++generation;
  RETURN_IF_ERROR(fs.CreateDirectories(JoinPath(JoinPath(run_directory, AttemptName(generation)), "logs")));
  return generation;
}

}  // namespace shoestring
