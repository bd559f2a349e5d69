// Tests of the failing file system itself: it must record, fail, kill and forget exactly what it says.
#include "base/fault_file_system.h"

#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

FileSystem& Real() { return PosixFileSystem(); }

// Every operation once; returns the statuses in the order of FileOperation's mutations.
std::vector<absl::Status> RunAllMutations(FileSystem& fs, const TempDir& dir) {
  std::vector<absl::Status> results;
  results.push_back(fs.CreateDirectories(dir.File("d")));
  if (auto file = fs.Create(dir.File("d/a")); file.ok()) {
    results.push_back(absl::OkStatus());
    results.push_back((*file)->Append("12345678"));
    results.push_back((*file)->Sync());
    results.push_back((*file)->Close());
  } else {
    results.push_back(file.status());
  }
  results.push_back(fs.OpenForAppend(dir.File("d/b")).status());
  results.push_back(fs.Truncate(dir.File("d/b"), 5));
  results.push_back(fs.Rename(dir.File("d/b"), dir.File("d/c")));
  results.push_back(fs.SyncDirectory(dir.File("d")));
  results.push_back(fs.Remove(dir.File("d/c")));
  return results;
}

TEST(FaultFileSystemTest, PassesThroughAndRecordsInOrder) {
  const TempDir dir;
  FaultFileSystem fs(Real());
  for (const absl::Status& status : RunAllMutations(fs, dir)) EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(*ReadFile(fs, dir.File("d/a")), "12345678");
  EXPECT_TRUE(fs.Map(dir.File("d/a")).ok());
  EXPECT_THAT(*fs.List(dir.File("d")), ElementsAre("a"));
  EXPECT_TRUE(Exists(fs, dir.File("d/a")));
  EXPECT_EQ(fs.mutation_count(), 10);
  EXPECT_EQ(fs.read_count(), 5);
  std::vector<std::string> lines;
  for (const FileOperationRecord& record : fs.operations()) {
    EXPECT_FALSE(record.failed);
    lines.push_back(std::string(FileOperationName(record.operation)) + " " + record.path.substr(dir.path().size()) +
                    " " + std::to_string(record.size_bytes));
  }
  EXPECT_THAT(lines, ElementsAre("create directories /d 0", "create /d/a 0", "append /d/a 8", "sync /d/a 0",
                                 "close /d/a 0", "open for append /d/b 0", "truncate /d/b 5", "rename /d/b 0",
                                 "sync directory /d 0", "remove /d/c 0", "open for read /d/a 0", "read /d/a 8",
                                 "map /d/a 0", "list /d 0", "stat /d/a 0"));
}

TEST(FaultFileSystemTest, FailsEachMutationOnceWithTheGivenStatus) {
  for (int64_t n = 0; n < 10; ++n) {
    const TempDir dir;
    FaultFileSystem fs(Real());
    fs.InjectAt(n, Fault::kFail, absl::UnavailableError("Input/output error"));
    const std::vector<absl::Status> results = RunAllMutations(fs, dir);
    EXPECT_EQ(results[n].code(), absl::StatusCode::kUnavailable) << n;
    const FileOperationRecord failed = fs.operations()[n];
    EXPECT_TRUE(failed.failed);
    EXPECT_EQ(results[n].message(),
              std::string(FileOperationName(failed.operation)) + " " + failed.path + ": Input/output error");
    EXPECT_FALSE(fs.dead());
    EXPECT_TRUE(WriteFile(fs, dir.File("later"), "x").ok());
  }
}

TEST(FaultFileSystemTest, FailedMutationsHaveNoEffect) {
  const TempDir dir;
  ASSERT_TRUE(WriteFile(Real(), dir.File("a"), "old").ok());
  FaultFileSystem fs(Real());
  for (int64_t n = 0; n < 4; ++n) fs.InjectAt(n, Fault::kFail);
  EXPECT_FALSE(fs.Create(dir.File("a")).ok());
  EXPECT_FALSE(fs.Truncate(dir.File("a"), 0).ok());
  EXPECT_FALSE(fs.Rename(dir.File("a"), dir.File("b")).ok());
  EXPECT_FALSE(fs.Remove(dir.File("a")).ok());
  EXPECT_EQ(*ReadFile(Real(), dir.File("a")), "old");
  EXPECT_THAT(*Real().List(dir.path()), ElementsAre("a"));
}

TEST(FaultFileSystemTest, ShortAppendWritesHalfAndGoesOn) {
  const TempDir dir;
  FaultFileSystem fs(Real());
  fs.InjectAt(1, Fault::kShortAppend);
  const auto file = fs.Create(dir.File("a"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->Append("12345678").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*ReadFile(Real(), dir.File("a")), "1234");
  EXPECT_TRUE((*file)->Append("x").ok());
  EXPECT_EQ(*ReadFile(Real(), dir.File("a")), "1234x");
}

struct KillCase {
  Fault fault;
  const char* left;
};

class KillTest : public testing::TestWithParam<KillCase> {};

TEST_P(KillTest, LeavesWhatItSaysAndNothingWorksAfter) {
  const TempDir dir;
  FaultFileSystem fs(Real());
  fs.InjectAt(1, GetParam().fault);
  const auto file = fs.Create(dir.File("a"));
  ASSERT_TRUE(file.ok());
  const absl::Status status = (*file)->Append("12345678");
  EXPECT_THAT(std::string(status.message()), HasSubstr("killed"));
  EXPECT_TRUE(fs.dead());
  EXPECT_FALSE((*file)->Append("more").ok());
  EXPECT_FALSE((*file)->Sync().ok());
  EXPECT_FALSE((*file)->Close().ok());
  for (const absl::Status& later : RunAllMutations(fs, dir)) EXPECT_FALSE(later.ok());
  EXPECT_FALSE(fs.OpenForRead(dir.File("a")).ok());
  EXPECT_FALSE(fs.Stat(dir.File("a")).ok());
  EXPECT_EQ(*ReadFile(Real(), dir.File("a")), GetParam().left);
  EXPECT_THAT(*Real().List(dir.path()), ElementsAre("a"));
}

INSTANTIATE_TEST_SUITE_P(Kills, KillTest,
                         testing::Values(KillCase{Fault::kKillBefore, ""}, KillCase{Fault::kKillDuring, "1234"},
                                         KillCase{Fault::kKillAfter, "12345678"}));

TEST(FaultFileSystemTest, FailsReads) {
  const TempDir dir;
  ASSERT_TRUE(WriteFile(Real(), dir.File("a"), "abc").ok());
  FaultFileSystem fs(Real());
  fs.FailReadAt(1, absl::UnavailableError("Input/output error"));
  const absl::StatusOr<std::string> contents = ReadFile(fs, dir.File("a"));
  EXPECT_EQ(contents.status().message(), "read " + dir.File("a") + ": Input/output error");
  EXPECT_EQ(*ReadFile(fs, dir.File("a")), "abc");
}

TEST(PowerLossTest, DropsDataWithoutSyncAndNamesWithoutDirectorySync) {
  const TempDir dir;
  FaultFileSystem fs(Real());
  ASSERT_TRUE(WriteFile(Real(), dir.File("old"), "old").ok());
  ASSERT_TRUE(fs.TrackDurability(dir.path()).ok());
  {
    const auto synced = fs.Create(dir.File("synced"));
    ASSERT_TRUE((*synced)->Append("12").ok());
    ASSERT_TRUE((*synced)->Sync().ok());
    ASSERT_TRUE((*synced)->Append("34").ok());
  }
  ASSERT_TRUE(WriteFile(fs, dir.File("unsynced"), "56").ok());
  ASSERT_TRUE(fs.SyncDirectory(dir.path()).ok());
  ASSERT_TRUE(WriteFile(fs, dir.File("nameless"), "78").ok());
  ASSERT_TRUE(fs.Remove(dir.File("old")).ok());
  ASSERT_TRUE(fs.LosePower(PowerLoss::kDropUnsynced).ok());
  EXPECT_TRUE(fs.dead());
  EXPECT_THAT(*Real().List(dir.path()), ElementsAre("old", "synced", "unsynced"));
  EXPECT_EQ(*ReadFile(Real(), dir.File("old")), "old");
  EXPECT_EQ(*ReadFile(Real(), dir.File("synced")), "12");
  EXPECT_EQ(*ReadFile(Real(), dir.File("unsynced")), "");
}

TEST(PowerLossTest, RenameOverUnsyncedDataLosesTheOldWhenNamesSurvive) {
  const TempDir dir;
  FaultFileSystem fs(Real());
  ASSERT_TRUE(WriteFile(Real(), dir.File("a"), "old").ok());
  ASSERT_TRUE(fs.TrackDurability(dir.path()).ok());
  ASSERT_TRUE(WriteFile(fs, dir.File("a.tmp"), "new").ok());
  ASSERT_TRUE(fs.Rename(dir.File("a.tmp"), dir.File("a")).ok());
  ASSERT_TRUE(fs.LosePower(PowerLoss::kKeepNames).ok());
  EXPECT_THAT(*Real().List(dir.path()), ElementsAre("a"));
  EXPECT_EQ(*ReadFile(Real(), dir.File("a")), "");  // the accident that a sync before the rename prevents
}

TEST(PowerLossTest, FollowsDirectoriesThroughRename) {
  const TempDir dir;
  FaultFileSystem fs(Real());
  ASSERT_TRUE(fs.TrackDurability(dir.path()).ok());
  ASSERT_TRUE(fs.CreateDirectories(dir.File("x/tmp")).ok());
  ASSERT_TRUE(WriteFileDurably(fs, dir.File("x/tmp/shard"), "data").ok());
  ASSERT_TRUE(fs.Rename(dir.File("x/tmp"), dir.File("x/step")).ok());
  ASSERT_TRUE(fs.SyncDirectory(dir.File("x")).ok());
  ASSERT_TRUE(fs.SyncDirectory(dir.path()).ok());
  ASSERT_TRUE(WriteFile(fs, dir.File("x/step/late"), "gone").ok());
  ASSERT_TRUE(fs.Truncate(dir.File("x/step/shard"), 1).ok());
  ASSERT_TRUE(fs.LosePower(PowerLoss::kDropUnsynced).ok());
  EXPECT_THAT(*Real().List(dir.File("x")), ElementsAre("step"));
  EXPECT_THAT(*Real().List(dir.File("x/step")), ElementsAre("shard"));
  EXPECT_EQ(*ReadFile(Real(), dir.File("x/step/shard")), "data");
}

TEST(PowerLossTest, DirectoryWhoseParentWasNeverSyncedIsGone) {
  const TempDir dir;
  FaultFileSystem fs(Real());
  ASSERT_TRUE(fs.TrackDurability(dir.path()).ok());
  ASSERT_TRUE(fs.CreateDirectories(dir.File("step")).ok());
  ASSERT_TRUE(WriteFileDurably(fs, dir.File("step/shard"), "data").ok());
  ASSERT_TRUE(fs.LosePower(PowerLoss::kDropUnsynced).ok());
  EXPECT_THAT(*Real().List(dir.path()), IsEmpty());
}

}  // namespace
}  // namespace shoestring
