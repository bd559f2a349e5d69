// Tests that a run never touches the memory of its device but through the backend: here that memory cannot be read or
// written while no operation runs, as if it lay on a GPU.
#include <sys/mman.h>

#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/timing_backend.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/checkpoint/host_state.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/save.h"
#include "trainer/checkpoint/train_state_io.h"

namespace shoestring {
namespace {

// Pages that are open while an operation runs. A backend that times reads its clock when an operation begins and when
// it has ended; so this clock is what opens and closes them.
class PageGate final : public Clock {
 public:
  int64_t MonotonicNanos() override {
    open_ = !open_;
    Protect();
    return 0;
  }
  int64_t WallNanos() override { return 0; }
  void SleepNanos(int64_t) override {}

  void Add(std::byte* data, int64_t size_bytes) {
    CHECK(data_ == nullptr);  // a run takes one block
    data_ = data;
    size_bytes_ = size_bytes;
    Protect();
  }
  void Remove() {
    mprotect(data_, size_bytes_, PROT_READ | PROT_WRITE);
    data_ = nullptr;
  }

 private:
  void Protect() {
    if (data_ != nullptr) CHECK_EQ(mprotect(data_, size_bytes_, open_ ? PROT_READ | PROT_WRITE : PROT_NONE), 0);
  }
  bool open_ = false;
  std::byte* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

class GatedMemory final : public Memory {
 public:
  GatedMemory(PageGate& gate, std::unique_ptr<Memory> pages) : gate_(gate), pages_(std::move(pages)) {
    gate_.Add(pages_->data(), pages_->size_bytes());
  }
  ~GatedMemory() override { gate_.Remove(); }
  std::byte* data() const override { return pages_->data(); }
  int64_t size_bytes() const override { return pages_->size_bytes(); }

 private:
  PageGate& gate_;
  const std::unique_ptr<Memory> pages_;
};

// The CPU with memory that is not the host's.
class GatedBackend final : public TimingBackend {
 public:
  GatedBackend(Backend& cpu, PageGate& gate) : TimingBackend(cpu, gate), gate_(gate) {}
  std::unique_ptr<Memory> Allocate(int64_t size_bytes) override {
    return std::make_unique<GatedMemory>(gate_, TimingBackend::Allocate(size_bytes));
  }
  bool memory_is_hosts() const override { return false; }

 private:
  PageGate& gate_;
};

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
