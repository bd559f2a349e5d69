// Every call that the program makes to a disk, behind one interface, so that tests can fail any of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace shoestring {

// A file being written from its start. Not thread-safe. Data is durable only after Sync() returned OK.
class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes; errors of an unclosed file are lost, so call Close().
  virtual absl::Status Append(absl::string_view data) = 0;
  virtual absl::Status Sync() = 0;
  virtual absl::Status Close() = 0;
};

// A file open for reading at any offset. Thread-safe.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  // Reads exactly `size` bytes at `offset` into `out`; OUT_OF_RANGE when the file ends before.
  virtual absl::Status ReadAt(int64_t offset, int64_t size, char* out) const = 0;
  virtual int64_t size_bytes() const = 0;
};

// A whole file mapped read-only; the view lives as long as the object.
class MappedFile {
 public:
  virtual ~MappedFile() = default;
  virtual absl::string_view contents() const = 0;
};

struct FileInfo {
  bool is_directory = false;
  int64_t size_bytes = 0;
  bool is_special = false;  // a device, pipe or socket
};

// Errors carry the path and the system's reason ("open /x/y: Permission denied"), and these codes: NOT_FOUND,
// ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED (disk full, quota), FAILED_PRECONDITION (a rename that would
// replace a device, pipe or socket), else UNAVAILABLE (any other I/O error).
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) = 0;         // truncates
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) = 0;  // creates
  virtual absl::StatusOr<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) = 0;  // regular files only
  virtual absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) = 0;            // regular files only
  virtual absl::StatusOr<FileInfo> Stat(const std::string& path) = 0;
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& directory) = 0;  // names, sorted
  virtual absl::Status CreateDirectories(const std::string& path) = 0;              // with parents; fine if it exists
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;  // atomic; replaces files
  virtual absl::Status Remove(const std::string& path) = 0;                         // one file or one empty directory
  virtual absl::Status SyncDirectory(const std::string& path) = 0;                  // makes names in it durable
  virtual absl::Status Truncate(const std::string& path, int64_t size_bytes) = 0;
};

// The status of a failed call of the system, as the POSIX file system gives it: "open /x/y: Permission denied".
absl::Status ErrnoStatus(absl::string_view verb, absl::string_view path, int error);

// The process-wide POSIX file system; stateless, lives for ever. Retries EINTR and short writes.
FileSystem& PosixFileSystem();

// Helpers over any file system.
inline constexpr int64_t kMaxReadBytes = int64_t{1} << 30;  // of a file that is read whole, unless its reader says more
// DATA_LOSS for a file of more than `max_bytes`, before memory is taken for it.
absl::StatusOr<std::string> ReadFile(FileSystem& fs, const std::string& path, int64_t max_bytes = kMaxReadBytes);
absl::Status WriteFile(FileSystem& fs, const std::string& path, absl::string_view contents);
// After OK the contents are durable; the name is, once its directory is synced.
absl::Status WriteSynced(FileSystem& fs, const std::string& path, absl::string_view contents);
// Temporary name, sync, rename, sync of the directory: after OK the file is whole and durable; before, the old one
// stands.
absl::Status WriteFileDurably(FileSystem& fs, const std::string& path, absl::string_view contents);
// `directory` and what is missing above it; durable.
absl::Status CreateDirectoriesDurably(FileSystem& fs, const std::string& directory);
bool Exists(FileSystem& fs, const std::string& path);
absl::Status RemoveRecursively(FileSystem& fs, const std::string& path);
// Joins with exactly one '/'.
std::string JoinPath(absl::string_view a, absl::string_view b);
// "a/b" of "a/b//"; the root stays.
absl::string_view WithoutTrailingSlashes(absl::string_view path);
// The same for all spellings of a place, there or not: absolute, without links, "." and "..". For comparing.
std::string CanonicalPath(const std::string& path);
std::string DirName(absl::string_view path);
std::string BaseName(absl::string_view path);

}  // namespace shoestring
