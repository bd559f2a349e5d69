// The log of one start of a run: the same lines on standard error and in the attempt's file.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"

namespace shoestring {

class RunLog {
 public:
  static absl::StatusOr<std::unique_ptr<RunLog>> Create(FileSystem& fs, const std::string& path);

  // One line. A log that cannot be written any more does not end a run: standard error has it.
  void Line(absl::string_view message);
  // Text as it is, newlines included.
  void Text(absl::string_view text);

 private:
  explicit RunLog(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  std::unique_ptr<WritableFile> file_;
};

}  // namespace shoestring
