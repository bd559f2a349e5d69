// A lock between processes: who holds the file works, everybody else is told who does.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shoestring {

// Advisory. Given back, and the file removed, when the object goes; given back when the process dies, however it dies.
class FileLock {
 public:
  // Creates the file in a folder that exists and writes the process into it, for people to read; synced, so that a disk
  // that takes no file says so now. UNAVAILABLE, "<what>: in use by process 123; <remedy>", when somebody has it;
  // NOT_FOUND when the folder is gone.
  static absl::StatusOr<std::unique_ptr<FileLock>> Take(const std::string& path, absl::string_view what,
                                                        absl::string_view remedy);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  FileLock(std::string path, int descriptor);
  std::string path_;
  int descriptor_;
};

}  // namespace shoestring
