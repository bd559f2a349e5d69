// flock on a file that goes with its lock.
#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/file_system.h"

namespace shoestring {
namespace {

std::string HolderOf(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(PosixFileSystem(), path);
  return text.ok() && !text->empty() ? absl::StrCat("process ", absl::StripAsciiWhitespace(*text)) : "another process";
}

// Whether the open file is still the one of that name.
bool IsNamed(int descriptor, const std::string& path) {
  struct stat open {};
  struct stat named {};
  return fstat(descriptor, &open) == 0 && stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

}  // namespace

FileLock::FileLock(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Take(const std::string& path, absl::string_view what,
                                                         absl::string_view remedy) {
  while (true) {
    const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) return ErrnoStatus("open", path, errno);
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      close(descriptor);
      if (error != EWOULDBLOCK) return ErrnoStatus("lock", path, error);
      return absl::UnavailableError(absl::StrCat(what, ": in use by ", HolderOf(path), "; ", remedy));
    }
    // The holder before may have removed the file after we opened it; a lock on it would keep nobody out.
    if (!IsNamed(descriptor, path)) {
      close(descriptor);
      continue;
    }
    auto lock = std::unique_ptr<FileLock>(new FileLock(path, descriptor));
    const std::string holder = absl::StrCat(getpid(), "\n");
    if (ftruncate(descriptor, 0) != 0 || write(descriptor, holder.data(), holder.size()) < 0 ||
        fsync(descriptor) != 0) {
      return ErrnoStatus("write", path, errno);
    }
    return lock;
  }
}

FileLock::~FileLock() {
  unlink(path_.c_str());  // first: after close the name may be another holder's
  close(descriptor_);
}

}  // namespace shoestring
