// A fresh directory for one test, removed at its end.
#pragma once

#include <stdlib.h>

#include <string>

#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/file_system.h"
#include "gtest/gtest.h"

namespace shoestring {

class TempDir {
 public:
  TempDir() : path_(JoinPath(testing::TempDir(), "shoestring_XXXXXX")) { CHECK(mkdtemp(path_.data()) != nullptr); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() { RemoveRecursively(PosixFileSystem(), path_).IgnoreError(); }

  const std::string& path() const { return path_; }
  std::string File(absl::string_view name) const { return JoinPath(path_, name); }

 private:
  std::string path_;
};

}  // namespace shoestring
