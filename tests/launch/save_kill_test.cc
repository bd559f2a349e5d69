// A run that is killed at every single file operation of its saves continues to the same bits.
#include <filesystem>
#include <memory>
#include <string>

#include "base/fault_file_system.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/run_observers.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/checkpoint/fast_file_system.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/train_state_io.h"

namespace shoestring {
namespace {

// Two steps between saves, of which two are kept: saves, their LATEST, and removals all happen.
config::RunConfig Config() {
  return TinyConfig("BF16",
                    "checkpoint { interval_steps: 2 keep: 2 } train { phase { sequence_length: 12 steps: 6 "
                    "micro_batch: 2 batch { sequences: 4 } learning_rate { constant: 0.003 } } }");
}

// One start: goes on from the newest checkpoint of `directory`, if there is one, saving through `fs`.
absl::StatusOr<std::string> Start(FileSystem& fs, const std::string& directory) {
  const config::RunConfig config = Config();
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::Create(config, FormulaData(config), *backend, RealClock(), {}));
  RETURN_IF_ERROR(RemoveLeftovers(fs, directory));
  absl::StatusOr<OpenedCheckpoint> from = FindNewest(fs, directory);
  if (from.ok()) {
    RETURN_IF_ERROR(ReadState(fs, *from, StateTensorsOf(trainer->state()), Coverage::kWholeState));
    trainer->state().position = PositionOf(from->header());
    RETURN_IF_ERROR(trainer->RefreshCompute());
  } else if (!absl::IsNotFound(from.status())) {
    return from.status();
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<RunLog> log, RunLog::Create(PosixFileSystem(), "/dev/null"));
  CheckpointObserver saver(fs, directory, config, {}, *trainer, *log);
  trainer->AddObserver(saver);
  RETURN_IF_ERROR(trainer->Run().status());
  Snapshot end{{}, StateTensorsOf(trainer->state())};
  SetPosition(trainer->state().position, end.header);
  return StateDigest(end);
}

class SaveKillTest : public testing::TestWithParam<Fault> {};

TEST_P(SaveKillTest, EveryOperationOfASaveMayBeTheLast) {
  const TempDir temp;
  FaultFileSystem counter(FastFileSystem());
  const absl::StatusOr<std::string> undisturbed = Start(counter, temp.File("undisturbed"));
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  ASSERT_GT(counter.mutation_count(), 40);
  for (int64_t n = 0; n < counter.mutation_count(); ++n) {
    const std::string directory = temp.File("killed");
    FaultFileSystem dying(FastFileSystem());
    dying.InjectAt(n, GetParam());
    EXPECT_FALSE(Start(dying, directory).ok()) << "operation " << n;
    EXPECT_TRUE(dying.dead());
    const absl::StatusOr<std::string> resumed = Start(FastFileSystem(), directory);
    ASSERT_TRUE(resumed.ok()) << "killed at operation " << n << ": " << resumed.status();
    EXPECT_EQ(*resumed, *undisturbed) << "killed at operation " << n;
    const absl::StatusOr<DirectoryListing> listing = ListDirectory(PosixFileSystem(), directory);
    ASSERT_TRUE(listing.ok());
    EXPECT_THAT(listing->leftovers, testing::IsEmpty()) << "killed at operation " << n;
    ASSERT_TRUE(RemoveRecursively(PosixFileSystem(), directory).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, SaveKillTest,
                         testing::Values(Fault::kKillBefore, Fault::kKillDuring, Fault::kKillAfter));

// A disk that is full for a moment ends the run with that error; the next start goes on.
TEST(SaveFailureTest, AFullDiskEndsTheRunAndLosesNothing) {
  const TempDir temp;
  FaultFileSystem counter(FastFileSystem());
  const absl::StatusOr<std::string> undisturbed = Start(counter, temp.File("undisturbed"));
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  for (int64_t n = 0; n < counter.mutation_count(); n += 3) {
    const std::string directory = temp.File("full");
    FaultFileSystem full(FastFileSystem());
    full.InjectAt(n, Fault::kShortAppend);
    const absl::Status failed = Start(full, directory).status();
    if (!failed.ok()) {
      EXPECT_TRUE(absl::IsResourceExhausted(failed)) << failed;
    }
    const absl::StatusOr<std::string> resumed = Start(FastFileSystem(), directory);
    ASSERT_TRUE(resumed.ok()) << "full at operation " << n << ": " << resumed.status();
    EXPECT_EQ(*resumed, *undisturbed) << "full at operation " << n;
    ASSERT_TRUE(RemoveRecursively(PosixFileSystem(), directory).ok());
  }
}

}  // namespace
}  // namespace shoestring
