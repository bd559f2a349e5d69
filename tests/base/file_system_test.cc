// Tests of the POSIX file system: contents, error codes and messages; and of the helpers over any file system.
#include "base/file_system.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/fault_file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Gives up root's right to pass every permission check, for a scope.
class ScopedUnprivileged {
 public:
  ScopedUnprivileged() : was_root_(geteuid() == 0) {
    if (was_root_) CHECK_EQ(seteuid(65534), 0);
  }
  ~ScopedUnprivileged() {
    if (was_root_) CHECK_EQ(seteuid(0), 0);
  }

 private:
  const bool was_root_;
};

FileSystem& Fs() { return PosixFileSystem(); }

TEST(PathTest, SpellingsOfOnePlaceAreOne) {
  const TempDir dir;
  ASSERT_TRUE(Fs().CreateDirectories(dir.File("a")).ok());
  ASSERT_EQ(symlink("a", dir.File("link").c_str()), 0);
  const std::string place = CanonicalPath(dir.File("a/new"));
  for (const char* spelling : {"./a/new", "a//new/", "a/../a/./new", "link/new"}) {
    EXPECT_EQ(CanonicalPath(dir.File(spelling)), place) << spelling;
  }
  EXPECT_NE(CanonicalPath(dir.File("b/new")), place);
  EXPECT_EQ(CanonicalPath("x"), CanonicalPath("./y/../x"));
  EXPECT_EQ(WithoutTrailingSlashes("a/b//"), "a/b");
  EXPECT_EQ(WithoutTrailingSlashes("//"), "/");
}

TEST(PosixFileSystemTest, WritesThenReadsBack) {
  const TempDir dir;
  const std::string path = dir.File("a");
  auto file = Fs().Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->Append("hello ").ok());
  EXPECT_TRUE((*file)->Append("").ok());
  EXPECT_TRUE((*file)->Append(std::string("wor\0ld", 6)).ok());
  EXPECT_TRUE((*file)->Sync().ok());
  EXPECT_TRUE((*file)->Close().ok());
  EXPECT_TRUE((*file)->Close().ok());  // a second close is harmless
  EXPECT_FALSE((*file)->Append("late").ok());
  EXPECT_FALSE((*file)->Sync().ok());
  EXPECT_EQ(*ReadFile(Fs(), path), std::string("hello wor\0ld", 12));
  EXPECT_EQ(Fs().Stat(path)->size_bytes, 12);
  EXPECT_FALSE(Fs().Stat(path)->is_directory);
  EXPECT_TRUE(Fs().Stat(dir.path())->is_directory);
}

TEST(PosixFileSystemTest, CreateTruncatesAndAppendContinues) {
  const TempDir dir;
  const std::string path = dir.File("a");
  ASSERT_TRUE(WriteFile(Fs(), path, "long contents").ok());
  ASSERT_TRUE(WriteFile(Fs(), path, "new").ok());
  {
    const auto file = Fs().OpenForAppend(path);
    ASSERT_TRUE(file.ok());
    EXPECT_TRUE((*file)->Append("er").ok());
  }
  EXPECT_EQ(*ReadFile(Fs(), path), "newer");
  EXPECT_TRUE(Fs().OpenForAppend(dir.File("b")).ok());
  EXPECT_EQ(*ReadFile(Fs(), dir.File("b")), "");
}

TEST(PosixFileSystemTest, ReadsAtOffsetsAndSaysWhereTheFileEnds) {
  const TempDir dir;
  ASSERT_TRUE(WriteFile(Fs(), dir.File("a"), "0123456789").ok());
  const auto file = Fs().OpenForRead(dir.File("a"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->size_bytes(), 10);
  char out[5] = "....";
  EXPECT_TRUE((*file)->ReadAt(6, 4, out).ok());
  EXPECT_STREQ(out, "6789");
  EXPECT_TRUE((*file)->ReadAt(10, 0, out).ok());
  for (const int64_t offset : {int64_t{7}, int64_t{11}, int64_t{-1}, int64_t{1} << 62}) {
    const absl::Status status = (*file)->ReadAt(offset, 4, out);
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << offset;
    EXPECT_THAT(std::string(status.message()), HasSubstr("the file has 10 bytes"));
  }
  EXPECT_EQ((*file)->ReadAt(0, -1, out).code(), absl::StatusCode::kOutOfRange);
}

TEST(ReadFileTest, TakesNoMemoryForAFileThatIsTooLarge) {
  const TempDir dir;
  const std::string path = dir.File("a");
  ASSERT_TRUE(WriteFile(Fs(), path, "123456").ok());
  EXPECT_EQ(*ReadFile(Fs(), path, 6), "123456");
  EXPECT_EQ(ReadFile(Fs(), path, 5).status(),
            absl::DataLossError(path + ": has 6 bytes, but must have at most 5; check that it is the file you mean"));
  ASSERT_TRUE(Fs().Truncate(path, int64_t{1} << 41).ok());
  EXPECT_EQ(ReadFile(Fs(), path).status().code(), absl::StatusCode::kDataLoss);
}

TEST(PosixFileSystemTest, MapsFilesAndEmptyFiles) {
  const TempDir dir;
  ASSERT_TRUE(WriteFile(Fs(), dir.File("a"), "mapped").ok());
  ASSERT_TRUE(WriteFile(Fs(), dir.File("empty"), "").ok());
  const auto mapped = Fs().Map(dir.File("a"));
  ASSERT_TRUE(mapped.ok());
  EXPECT_TRUE(Fs().Remove(dir.File("a")).ok());
  EXPECT_EQ((*mapped)->contents(), "mapped");  // the view outlives the name
  const auto empty = Fs().Map(dir.File("empty"));
  ASSERT_TRUE(empty.ok());
  EXPECT_THAT((*empty)->contents(), IsEmpty());
}

TEST(PosixFileSystemTest, AbsentFilesAreNotFoundWithPathAndReason) {
  const TempDir dir;
  const std::string path = dir.File("nothing/here");
  const std::vector<absl::Status> statuses = {Fs().OpenForRead(path).status(),
                                              Fs().Map(path).status(),
                                              Fs().Stat(path).status(),
                                              Fs().List(path).status(),
                                              Fs().Remove(path),
                                              Fs().Rename(path, dir.File("b")),
                                              Fs().SyncDirectory(path),
                                              Fs().Truncate(path, 0),
                                              Fs().Create(path).status(),
                                              Fs().OpenForAppend(path).status(),
                                              ReadFile(Fs(), path).status()};
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
    EXPECT_THAT(std::string(status.message()), EndsWith(": No such file or directory"));
  }
}

TEST(PosixFileSystemTest, PermissionDenied) {
  const TempDir dir;
  ASSERT_TRUE(WriteFile(Fs(), dir.File("a"), "x").ok());
  ASSERT_EQ(chmod(dir.File("a").c_str(), 0), 0);
  ASSERT_EQ(chmod(dir.path().c_str(), 0500), 0);
  {
    const ScopedUnprivileged unprivileged;
    EXPECT_EQ(Fs().OpenForRead(dir.File("a")).status().code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(Fs().Create(dir.File("b")).status().code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(Fs().Remove(dir.File("a")).code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(Fs().CreateDirectories(dir.File("c/d")).code(), absl::StatusCode::kPermissionDenied);
  }
  ASSERT_EQ(chmod(dir.path().c_str(), 0700), 0);
}

TEST(PosixFileSystemTest, FullDiskIsResourceExhaustedAndSticks) {
  const auto file = Fs().OpenForAppend("/dev/full");
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status failed = (*file)->Append("x");
  EXPECT_EQ(failed.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(failed.message(), "write /dev/full: No space left on device");
  EXPECT_EQ((*file)->Append(""), failed);
  EXPECT_EQ((*file)->Sync(), failed);
  EXPECT_EQ((*file)->Close(), failed);
}

TEST(PosixFileSystemTest, DirectoriesAreNotFiles) {
  const TempDir dir;
  for (const absl::Status& status :
       {Fs().OpenForRead(dir.path()).status(), Fs().Map(dir.path()).status(), Fs().Create(dir.path()).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), EndsWith("Is a directory"));
  }
  ASSERT_TRUE(WriteFile(Fs(), dir.File("a"), "x").ok());
  EXPECT_EQ(Fs().List(dir.File("a")).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Fs().SyncDirectory(dir.File("a")).code(), absl::StatusCode::kUnavailable);
}

TEST(PosixFileSystemTest, PipesAndDevicesAreNotFilesToReadFrom) {
  const TempDir dir;
  ASSERT_EQ(mkfifo(dir.File("pipe").c_str(), 0600), 0);  // without a writer, for which nobody waits
  for (const std::string& path : {dir.File("pipe"), std::string("/dev/null")}) {
    for (const absl::Status& status :
         {Fs().OpenForRead(path).status(), Fs().Map(path).status(), ReadFile(Fs(), path).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
      EXPECT_EQ(status.message(), absl::StrCat("open ", path, ": is not a regular file, which it must be"));
    }
  }
}

TEST(PosixFileSystemTest, CreatesDirectoriesWithParentsOnceOrTwice) {
  const TempDir dir;
  EXPECT_TRUE(Fs().CreateDirectories(dir.File("a/b//c/")).ok());
  EXPECT_TRUE(Fs().CreateDirectories(dir.File("a/b/c")).ok());
  EXPECT_TRUE(Fs().Stat(dir.File("a/b/c"))->is_directory);
  ASSERT_TRUE(WriteFile(Fs(), dir.File("file"), "x").ok());
  EXPECT_EQ(Fs().CreateDirectories(dir.File("file")).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Fs().CreateDirectories(dir.File("file/a")).code(), absl::StatusCode::kAlreadyExists);
}

TEST(PosixFileSystemTest, ListsSortedAndRenamesAndTruncates) {
  const TempDir dir;
  for (const char* name : {"b", "a", ".hidden", "c"}) ASSERT_TRUE(WriteFile(Fs(), dir.File(name), name).ok());
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre(".hidden", "a", "b", "c"));
  EXPECT_TRUE(Fs().Rename(dir.File("a"), dir.File("b")).ok());
  EXPECT_EQ(*ReadFile(Fs(), dir.File("b")), "a");
  EXPECT_TRUE(Fs().Truncate(dir.File("b"), 3).ok());
  EXPECT_EQ(*ReadFile(Fs(), dir.File("b")), std::string("a\0\0", 3));
  EXPECT_TRUE(Fs().SyncDirectory(dir.path()).ok());
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre(".hidden", "b", "c"));
}

TEST(PosixFileSystemTest, RemovesFilesAndOnlyEmptyDirectories) {
  const TempDir dir;
  ASSERT_TRUE(Fs().CreateDirectories(dir.File("d")).ok());
  ASSERT_TRUE(WriteFile(Fs(), dir.File("d/a"), "x").ok());
  EXPECT_EQ(Fs().Remove(dir.File("d")).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Fs().Remove(dir.File("d/a")).ok());
  EXPECT_TRUE(Fs().Remove(dir.File("d")).ok());
  EXPECT_FALSE(Exists(Fs(), dir.File("d")));
}

TEST(FileHelpersTest, DirectoriesCreatedDurablySurvivePowerLoss) {
  const TempDir dir;
  FaultFileSystem fs(Fs());
  ASSERT_TRUE(fs.TrackDurability(dir.path()).ok());
  EXPECT_TRUE(CreateDirectoriesDurably(fs, dir.File("a/b/c")).ok());
  EXPECT_TRUE(CreateDirectoriesDurably(fs, dir.File("a/b/c")).ok());
  ASSERT_TRUE(fs.LosePower(PowerLoss::kDropUnsynced).ok());
  EXPECT_TRUE(Fs().Stat(dir.File("a/b/c")).ok());
}

TEST(FileHelpersTest, RemoveRecursivelyNeverFollowsLinks) {
  const TempDir dir;
  ASSERT_TRUE(Fs().CreateDirectories(dir.File("tree/a/b")).ok());
  ASSERT_TRUE(Fs().CreateDirectories(dir.File("outside")).ok());
  ASSERT_TRUE(WriteFile(Fs(), dir.File("tree/a/b/f"), "x").ok());
  ASSERT_TRUE(WriteFile(Fs(), dir.File("outside/precious"), "x").ok());
  ASSERT_EQ(symlink(dir.File("outside").c_str(), dir.File("tree/link").c_str()), 0);
  EXPECT_TRUE(RemoveRecursively(Fs(), dir.File("tree")).ok());
  EXPECT_FALSE(Exists(Fs(), dir.File("tree")));
  EXPECT_TRUE(Exists(Fs(), dir.File("outside/precious")));
  EXPECT_TRUE(RemoveRecursively(Fs(), dir.File("tree")).ok());  // absent already
}

TEST(FileHelpersTest, Paths) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "/b"), "a/b");
  EXPECT_EQ(JoinPath("/", "b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(JoinPath("a", ""), "a");
  EXPECT_EQ(DirName("/a/b"), "/a");
  EXPECT_EQ(DirName("/a/b/"), "/a");
  EXPECT_EQ(DirName("a//b"), "a");
  EXPECT_EQ(DirName("/a"), "/");
  EXPECT_EQ(DirName("/"), "/");
  EXPECT_EQ(DirName("a"), ".");
  EXPECT_EQ(BaseName("/a/b"), "b");
  EXPECT_EQ(BaseName("/a/b/"), "b");
  EXPECT_EQ(BaseName("a"), "a");
  EXPECT_EQ(BaseName("/"), "/");
}

TEST(FileHelpersTest, DurableWriteReplacesAndLeavesNoTemporary) {
  const TempDir dir;
  ASSERT_TRUE(WriteFileDurably(Fs(), dir.File("a"), "old").ok());
  ASSERT_TRUE(WriteFileDurably(Fs(), dir.File("a"), "new").ok());
  EXPECT_EQ(*ReadFile(Fs(), dir.File("a")), "new");
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre("a"));
}

class DurableWriteTest : public testing::TestWithParam<Fault> {};

TEST_P(DurableWriteTest, AnyFailingOperationLeavesOldOrNewContents) {
  const std::string old_contents(1000, 'o'), new_contents(3000, 'n');
  bool saw_old = false, saw_new = false;
  int64_t mutations = 1;
  for (int64_t n = 0; n < mutations; ++n) {
    const TempDir dir;
    ASSERT_TRUE(WriteFile(Fs(), dir.File("a"), old_contents).ok());
    FaultFileSystem healthy(Fs());
    ASSERT_TRUE(WriteFileDurably(healthy, dir.File("probe"), new_contents).ok());
    mutations = healthy.mutation_count();
    FaultFileSystem faulty(Fs());
    faulty.InjectAt(n, GetParam());
    EXPECT_FALSE(WriteFileDurably(faulty, dir.File("a"), new_contents).ok()) << n;
    const std::string left = *ReadFile(Fs(), dir.File("a"));
    EXPECT_TRUE(left == old_contents || left == new_contents) << "after operation " << n;
    (left == old_contents ? saw_old : saw_new) = true;
    // Whatever was left lying about, the next write works.
    ASSERT_TRUE(WriteFileDurably(Fs(), dir.File("a"), "next").ok());
    EXPECT_EQ(*ReadFile(Fs(), dir.File("a")), "next");
    EXPECT_FALSE(Exists(Fs(), dir.File("a.tmp")));
  }
  EXPECT_EQ(mutations, 6);  // create, append, sync, close, rename, sync directory
  EXPECT_TRUE(saw_old);
  EXPECT_TRUE(saw_new);
}

INSTANTIATE_TEST_SUITE_P(AllFaults, DurableWriteTest,
                         testing::Values(Fault::kFail, Fault::kShortAppend, Fault::kKillBefore, Fault::kKillDuring,
                                         Fault::kKillAfter));

TEST(DurableWritePowerLossTest, AnyOperationBeforeThePowerFailsLeavesOldOrNewContents) {
  for (const PowerLoss loss : {PowerLoss::kDropUnsynced, PowerLoss::kKeepNames}) {
    for (int64_t n = 0; n <= 6; ++n) {
      const TempDir dir;
      ASSERT_TRUE(WriteFile(Fs(), dir.File("a"), "old").ok());
      FaultFileSystem faulty(Fs());
      ASSERT_TRUE(faulty.TrackDurability(dir.path()).ok());
      faulty.InjectAt(n, Fault::kKillBefore);
      const bool told_ok = WriteFileDurably(faulty, dir.File("a"), "new").ok();
      EXPECT_EQ(told_ok, n == 6);
      ASSERT_TRUE(faulty.LosePower(loss).ok());
      const std::string left = *ReadFile(Fs(), dir.File("a"));
      if (told_ok) {
        EXPECT_EQ(left, "new");
      } else {
        EXPECT_TRUE(left == "old" || left == "new") << left;
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
