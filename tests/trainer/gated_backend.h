// A backend whose memory cannot be read or written while no operation of it runs, as if it lay on a GPU.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/timing_backend.h"

namespace shoestring {

// Pages that are open while an operation runs. A backend that times reads its clock when an operation begins and when
// it has ended; so this clock is what opens and closes them.
class PageGate final : public Clock {
 public:
  int64_t MonotonicNanos() override {
    open_ = !open_;
    for (const Block& block : blocks_) Protect(block, open_);
    return 0;
  }
  int64_t WallNanos() override { return 0; }
  void SleepNanos(int64_t) override {}

  void Add(std::byte* data, int64_t size_bytes) {
    blocks_.push_back({data, size_bytes});
    Protect(blocks_.back(), open_);
  }
  void Remove(const std::byte* data) {
    const auto block = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& b) { return b.data == data; });
    CHECK(block != blocks_.end());
    Protect(*block, true);
    blocks_.erase(block);
  }

 private:
  struct Block {
    std::byte* data = nullptr;
    int64_t size_bytes = 0;
  };
  static void Protect(const Block& block, bool open) {
    if (block.size_bytes == 0) return;
    CHECK_EQ(mprotect(block.data, block.size_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE), 0);
  }

  bool open_ = false;
  std::vector<Block> blocks_;
};

class GatedMemory final : public Memory {
 public:
  GatedMemory(PageGate& gate, std::unique_ptr<Memory> pages) : gate_(gate), pages_(std::move(pages)) {
    gate_.Add(pages_->data(), pages_->size_bytes());
  }
  ~GatedMemory() override { gate_.Remove(pages_->data()); }
  std::byte* data() const override { return pages_->data(); }
  int64_t size_bytes() const override { return pages_->size_bytes(); }

 private:
  PageGate& gate_;
  const std::unique_ptr<Memory> pages_;
};

// The CPU with memory that is not the host's.
class GatedBackend : public TimingBackend {
 public:
  GatedBackend(Backend& cpu, PageGate& gate) : TimingBackend(cpu, gate), gate_(gate) {}
  std::unique_ptr<Memory> Allocate(int64_t size_bytes) override {
    return std::make_unique<GatedMemory>(gate_, TimingBackend::Allocate(size_bytes));
  }
  bool memory_is_hosts() const override { return false; }

 private:
  PageGate& gate_;
};

struct GatedParts {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1, .spin = 0});
  PageGate gate;
};
// The same with a CPU and a gate of its own: one for each rank.
class GatedDevice final : private GatedParts, public GatedBackend {
 public:
  GatedDevice() : GatedBackend(*cpu, gate) {}
};

}  // namespace shoestring
