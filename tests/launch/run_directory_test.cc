// The lock on a run's directories: it keeps others out of both, leaves nothing behind, and survives a power failure.
#include "launch/run_directory.h"

#include "base/fault_file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

TEST(RunLockTest, TwoRunsCannotShareADirectoryOfCheckpoints) {
  const TempDir dir;
  FileSystem& fs = PosixFileSystem();
  auto first = RunLock::Take(fs, dir.File("first"), dir.File("checkpoints"));
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = RunLock::Take(fs, dir.File("second"), dir.File("checkpoints")).status();
  EXPECT_TRUE(absl::IsUnavailable(second)) << second;
  EXPECT_THAT(second.message(), HasSubstr("checkpoints: in use by process"));
  EXPECT_FALSE(Exists(fs, dir.File("second")));
  first->reset();
  EXPECT_TRUE(RunLock::Take(fs, dir.File("second"), dir.File("checkpoints")).ok());
}

TEST(RunLockTest, BothMayBeOneDirectory) {
  const TempDir dir;
  const auto lock = RunLock::Take(PosixFileSystem(), dir.File("run"), dir.File("run"));
  EXPECT_TRUE(lock.ok()) << lock.status();
}

TEST(RunLockTest, RemovesWhatItMadeAndNobodyUsed) {
  const TempDir dir;
  FileSystem& fs = PosixFileSystem();
  ASSERT_TRUE(RunLock::Take(fs, dir.File("a/run"), dir.File("a/run/b/checkpoints")).ok());
  EXPECT_FALSE(Exists(fs, dir.File("a")));
  ASSERT_TRUE(fs.CreateDirectories(dir.File("run/checkpoints")).ok());
  ASSERT_TRUE(RunLock::Take(fs, dir.File("run"), dir.File("run/checkpoints")).ok());
  EXPECT_TRUE(Exists(fs, dir.File("run/checkpoints")));
}

TEST(RunLockTest, WhatIsDurableInItsDirectoriesIsThereAfterAPowerFailure) {
  const TempDir dir;
  FaultFileSystem fs(PosixFileSystem());
  ASSERT_EQ(fs.TrackDurability(dir.path()), absl::OkStatus());
  const std::string run = dir.File("runs/first"), checkpoints = dir.File("elsewhere/first");
  const auto lock = RunLock::Take(fs, run, checkpoints);
  ASSERT_TRUE(lock.ok()) << lock.status();
  ASSERT_EQ(BeginAttempt(fs, run).status(), absl::OkStatus());
  ASSERT_EQ(WriteFileDurably(fs, ConfigPath(run), "config"), absl::OkStatus());
  ASSERT_EQ(fs.LosePower(PowerLoss::kDropUnsynced), absl::OkStatus());
  EXPECT_TRUE(HoldsRun(PosixFileSystem(), run));
  EXPECT_TRUE(Exists(PosixFileSystem(), JoinPath(run, "attempt_000/logs")));
  EXPECT_TRUE(Exists(PosixFileSystem(), checkpoints));
}

}  // namespace
}  // namespace shoestring
