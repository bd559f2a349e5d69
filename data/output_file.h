// A large file that appears whole or not at all: buffered writes under a temporary name, then sync and rename. And the
// lock that keeps two writers from one output.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_lock.h"
#include "base/file_system.h"
#include "data/shard_meta.h"

namespace shoestring {

// Not thread-safe. `fs` must outlive the object. An object destroyed before Commit() removes its temporary file.
class OutputFile {
 public:
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(FileSystem& fs, const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  absl::Status Append(absl::string_view bytes);
  // Puts all bytes on the disk, still under the temporary name; no Append after it.
  absl::Status Seal();
  // Seals if that was not done. After OK the file stands durably under its name; before, what was there stands.
  absl::Status Commit();
  int64_t size_bytes() const { return size_bytes_; }
  // Checksum of each block of the content. Call once, after Commit().
  std::vector<std::string> TakeChecksums() { return checksums_.Finish(); }

 private:
  OutputFile(FileSystem& fs, std::string path, std::unique_ptr<WritableFile> file);
  absl::Status Flush();

  FileSystem& fs_;
  std::string path_;
  std::unique_ptr<WritableFile> file_;  // null once sealed
  std::string buffer_;
  int64_t size_bytes_ = 0;
  bool committed_ = false;
  BlockChecksummer checksums_;
};

// For whoever writes files whose names begin with `prefix`; makes their folder. UNAVAILABLE while another one does.
absl::StatusOr<std::unique_ptr<FileLock>> LockOutput(FileSystem& fs, const std::string& prefix);

}  // namespace shoestring
