// Tests that a run never touches the memory of its device but through the backend: here that memory cannot be read or
// written while no operation runs, as if it lay on a GPU.
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/gated_backend.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/checkpoint/host_state.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/save.h"
#include "trainer/checkpoint/shared_state.h"
#include "trainer/checkpoint/train_state_io.h"
#include "trainer/thread_ranks.h"

namespace shoestring {
namespace {

absl::StatusOr<std::string> DigestOf(Trainer& trainer) {
  ASSIGN_OR_RETURN(HostState host, HostState::Open(trainer.backend(), trainer.stream(), trainer.state()));
  host.Bring();
  Snapshot snapshot{{}, host.tensors()};
  SetPosition(trainer.state().position, snapshot.header);
  return StateDigest(snapshot);
}

// Saves to `directory` after the fifth step, so that another start can go on from there.
class Saver final : public TrainObserver {
 public:
  Saver(Trainer& trainer, std::string directory) : trainer_(trainer), directory_(std::move(directory)) {}
  absl::Status OnStep(const StepResult& result) override {
    if (result.position.step != 5) return absl::OkStatus();
    ASSIGN_OR_RETURN(HostState host, HostState::Open(trainer_.backend(), trainer_.stream(), trainer_.state()));
    host.Bring();
    Snapshot snapshot{{}, host.tensors()};
    SetPosition(trainer_.state().position, snapshot.header);
    return SaveCheckpoint(PosixFileSystem(), directory_, snapshot).status();
  }

 private:
  Trainer& trainer_;
  const std::string directory_;
};

// Runs to the end, from the checkpoint in `from` if one is named; gives the digest of the end.
absl::StatusOr<std::string> RunToEnd(const config::RunConfig& config, Backend& backend, const std::string& save_to,
                                     const std::string& from) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::Create(config, FormulaData(config), backend, RealClock(), {}));
  if (!from.empty()) {
    ASSIGN_OR_RETURN(const OpenedCheckpoint checkpoint, FindNewest(PosixFileSystem(), from));
    ASSIGN_OR_RETURN(HostState host, HostState::Open(backend, trainer->stream(), trainer->state()));
    RETURN_IF_ERROR(ReadState(PosixFileSystem(), checkpoint, host.tensors(), Coverage::kWholeState));
    host.Return();
    trainer->state().position = PositionOf(checkpoint.header());
    RETURN_IF_ERROR(trainer->RefreshCompute());
  }
  Saver saver(*trainer, save_to);
  if (!save_to.empty()) trainer->AddObserver(saver);
  RETURN_IF_ERROR(trainer->Run().status());
  return DigestOf(*trainer);
}

class DeviceMemoryTest : public testing::TestWithParam<const char*> {};

TEST_P(DeviceMemoryTest, ARunTouchesItThroughTheBackendOnly) {
  const config::RunConfig config = TinyConfig(GetParam());
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({});
  const absl::StatusOr<std::string> plain = RunToEnd(config, *cpu, "", "");
  ASSERT_TRUE(plain.ok()) << plain.status();
  PageGate gate;
  GatedBackend device(*cpu, gate);
  const TempDir dir;
  const absl::StatusOr<std::string> gated = RunToEnd(config, device, dir.path(), "");
  ASSERT_TRUE(gated.ok()) << gated.status();
  EXPECT_EQ(*gated, *plain);
  const absl::StatusOr<std::string> resumed = RunToEnd(config, device, "", dir.path());
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(*resumed, *plain);
}

// One of several ranks, on a device of its own, from the checkpoint in `from` if one is named: saves to `save_to` after
// the fifth step, and at the end to `end`, whose digest it gives (rank 0).
absl::StatusOr<std::string> RunRank(const config::RunConfig& config, RankLinks links, const std::string& from,
                                    const std::string& save_to, const std::string& end) {
  FileSystem& fs = PosixFileSystem();
  GatedDevice device;
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Trainer> trainer,
      Trainer::Create(config, FormulaData(config), device, RealClock(), {}, LinksOf(device, std::move(links))));
  Stream& stream = trainer->stream();
  if (!from.empty()) {
    ASSIGN_OR_RETURN(const OpenedCheckpoint checkpoint, FindNewest(fs, from));
    RETURN_IF_ERROR(ReadShared(fs, checkpoint, trainer->links(), device, stream, trainer->state()));
    RETURN_IF_ERROR(trainer->RefreshCompute());
  }
  const auto save = [&](const std::string& to) {
    return SaveShared(fs, to, {}, trainer->state(), device, stream, trainer->links());
  };
  while (trainer->state().position.step < 12) {
    RETURN_IF_ERROR(trainer->Step().status());
    if (!save_to.empty() && trainer->state().position.step == 5) RETURN_IF_ERROR(save(save_to).status());
  }
  ASSIGN_OR_RETURN(const SavedCheckpoint saved, save(end));
  return saved.state_digest;
}

absl::StatusOr<std::string> RunRanks(const config::RunConfig& config, const std::string& from,
                                     const std::string& save_to) {
  const TempDir end;
  std::string digest;
  RETURN_IF_ERROR(RunThreadRanks(*Mesh::Create(config.layout()), [&](RankLinks links) -> absl::Status {
    const bool first = links.rank == Rank(0);
    ASSIGN_OR_RETURN(const std::string of_rank, RunRank(config, std::move(links), from, save_to, end.path()));
    if (first) digest = of_rank;
    return absl::OkStatus();
  }));
  return digest;
}

TEST_P(DeviceMemoryTest, SoDoRanksThatExchangeAndSaveTogether) {
  const std::string lanes = "train { lanes: 4 expert_lanes: 1 } ";
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({});
  const absl::StatusOr<std::string> one = RunToEnd(TinyConfig(GetParam(), lanes), *cpu, "", "");
  ASSERT_TRUE(one.ok()) << one.status();
  const config::RunConfig config = TinyConfig(
      GetParam(),
      lanes + "layout { pipeline_ranks: 2 stages: 2 dualpipe {} data_ranks: 2 expert_ranks: 2 zero1: true }");
  const TempDir dir;
  const absl::StatusOr<std::string> many = RunRanks(config, "", dir.path());
  ASSERT_TRUE(many.ok()) << many.status();
  EXPECT_EQ(*many, *one);
  const absl::StatusOr<std::string> resumed = RunRanks(config, dir.path(), "");
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(*resumed, *one);
}

INSTANTIATE_TEST_SUITE_P(Modes, DeviceMemoryTest, testing::Values("FP32", "BF16", "FP8"));

using GateDeathTest = DeviceMemoryTest;
TEST_P(GateDeathTest, AReadBesideTheBackendIsSeen) {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({});
  PageGate gate;
  GatedBackend device(*cpu, gate);
  const std::unique_ptr<Memory> memory = device.Allocate(4096);
  EXPECT_DEATH(
      {
        volatile std::byte byte = *memory->data();
        static_cast<void>(byte);
      },
      "");
}
INSTANTIATE_TEST_SUITE_P(Modes, GateDeathTest, testing::Values("FP32"));

}  // namespace
}  // namespace shoestring
