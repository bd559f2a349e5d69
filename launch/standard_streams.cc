// The few calls of the system that keep the three standard descriptors honest.
#include "launch/standard_streams.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "absl/status/status.h"
#include "launch/exit_codes.h"

namespace shoestring {

namespace {

// Whoever reads a pipe and goes has seen what was wanted.
bool IsPipe(int descriptor) {
  struct stat info {};
  return fstat(descriptor, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode));
}

}  // namespace

void OpenStandardStreams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one, as those below are open.
    if (open("/dev/null", O_RDWR) != descriptor) std::abort();
  }
}

int FinishStandardOutput(int exit_code) {
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (written || IsPipe(STDOUT_FILENO) || exit_code != static_cast<int>(ExitCode::kDone)) return exit_code;
  // The reason belongs to whichever write failed first, and is not known any more.
  return Fail(Area::kRun, absl::UnavailableError("standard output: what was printed is not whole; make room on its "
                                                 "disk, or send it elsewhere"));
}

}  // namespace shoestring
