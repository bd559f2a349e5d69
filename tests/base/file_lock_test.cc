// A lock keeps the second taker out, goes with its file, and holds against a file that was removed under it.
#include "base/file_lock.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"

namespace shoestring {
namespace {

absl::StatusOr<std::unique_ptr<FileLock>> Take(const std::string& path) { return FileLock::Take(path, "it", "wait"); }

TEST(FileLockTest, TheSecondIsToldWhoHasItAndTheFileGoesWithTheLock) {
  const TempDir dir;
  const std::string path = dir.File("lock");
  auto first = Take(path);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = Take(path).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.message(), absl::StrCat("it: in use by process ", getpid(), "; wait"));
  first->reset();
  EXPECT_FALSE(Exists(PosixFileSystem(), path));
  EXPECT_TRUE(Take(path).ok());
}

TEST(FileLockTest, AFileThatAKilledProcessLeftIsNoLock) {
  const TempDir dir;
  ASSERT_TRUE(WriteFile(PosixFileSystem(), dir.File("lock"), "123456789\n").ok());
  const auto lock = Take(dir.File("lock"));
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_EQ(*ReadFile(PosixFileSystem(), dir.File("lock")), absl::StrCat(getpid(), "\n"));
}

TEST(FileLockTest, AnAbsentFolderIsNotFound) {
  const TempDir dir;
  const absl::Status status = Take(dir.File("absent/lock")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), testing::HasSubstr("absent/lock: No such file"));
}

}  // namespace
}  // namespace shoestring
