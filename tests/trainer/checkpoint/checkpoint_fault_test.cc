// Tests of checkpoints against the world: kill -9, power failures, full and failing disks, flipped bits, cut files.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/fault_file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/checkpoint/fast_file_system.h"
#include "tests/trainer/checkpoint/small_state.h"
#include "trainer/checkpoint/check.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/save.h"

namespace shoestring {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

FileSystem& Fs() { return FastFileSystem(); }
constexpr SaveOptions kSmallBlocks{.block_bytes = 256};
constexpr int kKeep = 2;

absl::Status SaveAndPrune(FileSystem& fs, const std::string& directory, const Snapshot& snapshot) {
  const absl::Status saved = SaveCheckpoint(fs, directory, snapshot, kSmallBlocks).status();
  return saved.ok() ? PruneCheckpoints(fs, directory, kKeep).status() : saved;
}

// What a run that starts now would continue from: "none", or the digest of what it reads.
std::string StartFrom(const std::string& directory) {
  const auto found = FindNewest(Fs(), directory);
  if (absl::IsNotFound(found.status())) return "none";
  if (!found.ok()) return found.status().ToString();
  SmallState state(0);
  state.Clear();
  const absl::Status read = ReadState(Fs(), *found, state.snapshot.tensors, Coverage::kWholeState);
  if (!read.ok()) return read.ToString();
  state.snapshot.header = found->header();
  return state.Digest();
}

// Everything that has a checkpoint's name is whole.
void ExpectAllGood(const std::string& directory) {
  const auto listing = ListDirectory(Fs(), directory);
  ASSERT_TRUE(listing.ok());
  for (const int64_t step : listing->steps) {
    const CheckReport report = CheckCheckpoint(Fs(), StepPath(directory, step));
    EXPECT_TRUE(report.ok()) << report.ToString();
  }
}

struct Scenario {
  const char* name;
  std::vector<int64_t> before;  // steps that are there
  int64_t step;                 // saved under faults, with a state that is none of those
};

// A directory of checkpoints before the save under test, and what may be found after it.
struct Bench {
  explicit Bench(const Scenario& scenario) : directory(dir.File("checkpoints")), next(scenario.step, /*seed=*/2) {
    CHECK(Fs().CreateDirectories(dir.path()).ok());
    old_digest = "none";
    for (const int64_t step : scenario.before) {
      const SmallState state(step);
      CHECK(SaveAndPrune(Fs(), directory, state.snapshot).ok());
      previous_digest = old_digest;
      old_digest = state.Digest();
    }
    next_digest = next.Digest();
    replaces = !scenario.before.empty() && scenario.before.back() == scenario.step;
  }

  // After a fault: the old one or the new one, never a mixture; told OK, the new one.
  void ExpectOldOrNew(bool told_ok, const std::string& when) {
    const std::string found = StartFrom(directory);
    if (told_ok) {
      EXPECT_EQ(found, next_digest) << when;
    } else if (replaces) {
      EXPECT_THAT(found, AnyOf(old_digest, previous_digest, next_digest)) << when;
    } else {
      EXPECT_THAT(found, AnyOf(old_digest, next_digest)) << when;
    }
    if (Exists(Fs(), directory)) ExpectAllGood(directory);
  }

  // The next run cleans up, and saves as if nothing had been.
  void ExpectTheNextRunWorks(const std::string& when) {
    ASSERT_TRUE(RemoveLeftovers(Fs(), directory).ok()) << when;
    const absl::Status status = SaveAndPrune(Fs(), directory, next.snapshot);
    ASSERT_TRUE(status.ok()) << when << ": " << status;
    EXPECT_EQ(StartFrom(directory), next_digest) << when;
    const auto listing = ListDirectory(Fs(), directory);
    EXPECT_TRUE(listing->leftovers.empty()) << when;
    EXPECT_LE(listing->steps.size(), static_cast<size_t>(kKeep)) << when;
  }

  TempDir dir;
  std::string directory;
  SmallState next;
  std::string previous_digest, old_digest, next_digest;
  bool replaces = false;
};

class FaultTest : public testing::TestWithParam<Scenario> {
 protected:
  int64_t MutationsOfASave() {
    Bench bench(GetParam());
    FaultFileSystem healthy(Fs());
    EXPECT_TRUE(SaveAndPrune(healthy, bench.directory, bench.next.snapshot).ok());
    return healthy.mutation_count();
  }
};

TEST_P(FaultTest, KilledAtAnyOperation) {
  const int64_t mutations = MutationsOfASave();
  EXPECT_GT(mutations, 20);
  bool saw_old = false, saw_new = false;
  for (const Fault fault : {Fault::kKillBefore, Fault::kKillDuring, Fault::kKillAfter}) {
    for (int64_t n = 0; n < mutations; ++n) {
      Bench bench(GetParam());
      FaultFileSystem faulty(Fs());
      faulty.InjectAt(n, fault);
      const bool told_ok = SaveAndPrune(faulty, bench.directory, bench.next.snapshot).ok();
      EXPECT_FALSE(told_ok) << n;
      const std::string when = absl::StrCat("killed at operation ", n);
      bench.ExpectOldOrNew(told_ok, when);
      (StartFrom(bench.directory) == bench.next_digest ? saw_new : saw_old) = true;
      bench.ExpectTheNextRunWorks(when);
    }
  }
  EXPECT_TRUE(saw_old);
  EXPECT_TRUE(saw_new);
}

TEST_P(FaultTest, DiskFailsAtAnyOperation) {
  const int64_t mutations = MutationsOfASave();
  const std::vector<std::pair<Fault, absl::Status>> faults = {
      {Fault::kFail, absl::ResourceExhaustedError("No space left on device")},
      {Fault::kShortAppend, absl::ResourceExhaustedError("No space left on device")},
      {Fault::kFail, absl::UnavailableError("Input/output error")}};
  for (const auto& [fault, error] : faults) {
    for (int64_t n = 0; n < mutations; ++n) {
      Bench bench(GetParam());
      FaultFileSystem faulty(Fs());
      faulty.InjectAt(n, fault, error);
      const absl::Status status = SaveAndPrune(faulty, bench.directory, bench.next.snapshot);
      const FileOperationRecord failed = [&] {
        for (const FileOperationRecord& record : faulty.operations()) {
          if (record.failed) return record;
        }
        return FileOperationRecord{};
      }();
      const std::string when = absl::StrCat(FileOperationName(failed.operation), " ", failed.path, " failed");
      if (failed.operation !=
          FileOperation::kRemove) {  // of a directory that is not empty, the first remove always fails
        EXPECT_EQ(status.code(), error.code()) << when;
        EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(error.message()))) << when;
      }
      bench.ExpectOldOrNew(status.ok(), when);
      bench.ExpectTheNextRunWorks(when);
    }
  }
}

TEST_P(FaultTest, ReadFailsAtAnyOperation) {
  int64_t reads = 1;
  for (int64_t n = 0; n < reads; ++n) {
    Bench bench(GetParam());
    FaultFileSystem faulty(Fs());
    faulty.FailReadAt(n, absl::UnavailableError("Input/output error"));
    const absl::Status status = SaveAndPrune(faulty, bench.directory, bench.next.snapshot);
    if (n == 0) reads = faulty.read_count() + 20;  // a failed run reads less than a whole one
    if (faulty.read_count() <= n) break;
    EXPECT_FALSE(status.ok()) << faulty.operations().back().path;
    bench.ExpectOldOrNew(status.ok(), absl::StrCat("read ", n, " failed"));
    bench.ExpectTheNextRunWorks(absl::StrCat("read ", n, " failed"));
  }
}

TEST_P(FaultTest, PowerFailsAtAnyOperation) {
  const int64_t mutations = MutationsOfASave();
  for (const PowerLoss loss : {PowerLoss::kDropUnsynced, PowerLoss::kKeepNames}) {
    for (int64_t n = 0; n <= mutations; ++n) {
      Bench bench(GetParam());
      FaultFileSystem faulty(Fs());
      ASSERT_TRUE(faulty.TrackDurability(bench.dir.path()).ok());
      faulty.InjectAt(n, Fault::kKillBefore);
      const bool told_ok = SaveAndPrune(faulty, bench.directory, bench.next.snapshot).ok();
      EXPECT_EQ(told_ok, n == mutations);
      ASSERT_TRUE(faulty.LosePower(loss).ok());
      const std::string when = absl::StrCat("no power from operation ", n);
      bench.ExpectOldOrNew(told_ok, when);
      bench.ExpectTheNextRunWorks(when);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Scenarios, FaultTest,
                         testing::Values(Scenario{"first", {}, 100}, Scenario{"third", {100, 200}, 300},
                                         Scenario{"same_step", {100, 200}, 200}, Scenario{"only_step", {100}, 100}),
                         [](const auto& info) { return std::string(info.param.name); });

// What a spoilt checkpoint must lead to: an error that names the file, before any tensor is touched.
void ExpectRefused(const std::string& path, const std::string& file, const std::string& what) {
  SmallState state(0);
  state.Clear();
  const std::string untouched = state.Digest();
  absl::Status status;
  if (const auto checkpoint = OpenCheckpoint(Fs(), path); checkpoint.ok()) {
    status = ReadState(Fs(), *checkpoint, state.snapshot.tensors, Coverage::kWholeState);
  } else {
    status = checkpoint.status();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << what << ": " << status;
  EXPECT_TRUE(absl::StrContains(status.message(), file)) << what << ": " << status;
  EXPECT_EQ(state.Digest(), untouched) << what;
}

class CorruptionTest : public testing::TestWithParam<const char*> {
 protected:
  CorruptionTest() {
    CHECK(SaveCheckpoint(Fs(), dir_.path(), SmallState(100).snapshot, kSmallBlocks).ok());
    path_ = dir_.File("step_0000100");
    file_ = JoinPath(path_, GetParam());
    bytes_ = *ReadFile(Fs(), file_);
  }
  TempDir dir_;
  std::string path_, file_, bytes_;
};

TEST_P(CorruptionTest, FlippedBitsAreSeenBeforeUse) {
  constexpr size_t kStride = 29;  // every bit of a byte in turn; manifest_test flips all of a manifest
  for (size_t bit = 0; bit < bytes_.size() * 8; bit += kStride) {
    std::string flipped = bytes_;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    ASSERT_TRUE(WriteFile(Fs(), file_, flipped).ok());
    const std::string block =
        std::string(GetParam()) == "manifest.pb" ? file_ : absl::StrCat(file_, ": block ", bit / 8 / 256, " of");
    ExpectRefused(path_, block, absl::StrCat("bit ", bit));
    if (HasFailure()) return;
  }
}

TEST_P(CorruptionTest, TruncationsAndZeroTailsAreSeen) {
  constexpr size_t kStride = 5;
  for (size_t size = 0; size < bytes_.size(); size += kStride) {
    ASSERT_TRUE(WriteFile(Fs(), file_, bytes_.substr(0, size)).ok());
    ExpectRefused(path_, file_, absl::StrCat("cut to ", size));
    // As a file system leaves it whose power failed: the right size, zeros at the end. Where the bytes were zeros
    // anyway nothing is wrong.
    const std::string zeros = bytes_.substr(0, size) + std::string(bytes_.size() - size, '\0');
    if (zeros == bytes_) continue;
    ASSERT_TRUE(WriteFile(Fs(), file_, zeros).ok());
    ExpectRefused(path_, file_, absl::StrCat("zeros from ", size));
    if (HasFailure()) return;
  }
  ASSERT_TRUE(WriteFile(Fs(), file_, bytes_ + "x").ok());
  ExpectRefused(path_, file_, "one byte more");
  ASSERT_TRUE(Fs().Remove(file_).ok());
  ExpectRefused(path_, GetParam(), "removed");
}

TEST_P(CorruptionTest, AFileOfAnotherCheckpointIsSeen) {
  ASSERT_TRUE(SaveCheckpoint(Fs(), dir_.path(), SmallState(200).snapshot, kSmallBlocks).ok());
  const std::string other = *ReadFile(Fs(), JoinPath(dir_.File("step_0000200"), GetParam()));
  ASSERT_TRUE(WriteFile(Fs(), file_, other).ok());
  ExpectRefused(path_, path_, "mixed");
}

INSTANTIATE_TEST_SUITE_P(Files, CorruptionTest, testing::Values("manifest.pb", "shard_00000.safetensors"),
                         [](const auto& info) { return info.index == 0 ? "manifest" : "shard"; });

}  // namespace
}  // namespace shoestring
