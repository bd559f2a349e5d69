// A block of CUDA threads on one CPU thread: each is a fiber that runs until it waits for others. For tests of kernels
// where no GPU is at hand: what addresses, barriers and roundings do shows; what races, speed and hardware do does not.
#pragma once

#include <cuda_runtime.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/check.h"

namespace shoestring::emulated {

// Threads of the block that runs; one block at a time, blocks of a grid in order.
class Fibers {
 public:
  struct Index {
    unsigned x = 0, y = 0, z = 0;
  };
  Index thread, block;
  dim3 grid_size, block_size;
  std::vector<uint8_t> shared;

  // Runs body() as every thread of every block. Aborts if no thread can go on.
  void Run(const dim3& grid, int threads, int64_t shared_bytes, const std::function<void()>& body) {
    grid_size = grid;
    block_size = dim3(static_cast<unsigned>(threads));
    shared.assign(shared_bytes + 1024, 0xff);
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
          block = {x, y, z};
          RunBlock(threads, body);
        }
      }
    }
  }

  // The calling fiber waits until ready() holds.
  void WaitFor(const std::function<bool()>& ready) {
    while (!ready()) Yield();
  }
  // The calling fiber waits until `count` fibers have called this with the same key. Those that have ended do not
  // count.
  void Meet(int64_t key, int count) {
    Meeting& meeting = meetings_[key];
    const int64_t round = meeting.round;
    ++progress_;
    if (++meeting.arrived == count) {
      meeting.arrived = 0;
      ++meeting.round;
    } else {
      WaitFor([&] { return meeting.round != round; });
    }
  }
  // Threads of this thread's block that have not ended.
  int alive() const { return alive_; }
  int lane() const { return static_cast<int>(thread.x % 32); }
  int warp() const { return static_cast<int>(thread.x / 32); }
  void Progress() { ++progress_; }

  // What the lanes of a warp hand each other.
  uint64_t Exchange(uint64_t mine, int from) {
    std::vector<uint64_t>& words = exchanged_[warp()];
    words.resize(32);
    words[lane()] = mine;
    Meet(kWarpKey + warp(), 32);
    const uint64_t theirs = words[from];
    Meet(kWarpKey + warp(), 32);
    return theirs;
  }
  static constexpr int64_t kBlockKey = 0, kNamedKey = 100, kWarpKey = 1000;

 private:
  struct Fiber {
    ucontext_t context;
    std::vector<uint8_t> stack;
    bool done = false;
  };
  struct Meeting {
    int arrived = 0;
    int64_t round = 0;
  };

  static void Enter(uint32_t low, uint32_t high) {
    auto* self = reinterpret_cast<Fibers*>(static_cast<uintptr_t>(low) | static_cast<uintptr_t>(high) << 32);
    const size_t running = self->running_;
    (*self->body_)();
    self->fibers_[running]->done = true;
    --self->alive_;
    ++self->progress_;
    swapcontext(&self->fibers_[running]->context, &self->scheduler_);
  }

  void Yield() {
    const Index mine = thread;
    swapcontext(&fibers_[running_]->context, &scheduler_);
    thread = mine;
  }

  void RunBlock(int threads, const std::function<void()>& body) {
    constexpr size_t kStackBytes = 64 * 1024;
    body_ = &body;
    meetings_.clear();
    alive_ = threads;
    while (static_cast<int>(fibers_.size()) < threads) {
      fibers_.push_back(std::make_unique<Fiber>());
      fibers_.back()->stack.resize(kStackBytes);
    }
    const auto address = reinterpret_cast<uintptr_t>(this);
    for (int i = 0; i < threads; ++i) {
      Fiber& fiber = *fibers_[i];
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = fiber.stack.size();
      fiber.context.uc_link = nullptr;
      fiber.done = false;
      makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Enter), 2, static_cast<uint32_t>(address),
                  static_cast<uint32_t>(address >> 32));
    }
    int idle = 0;
    while (alive_ > 0) {
      const int64_t before = progress_;
      for (int i = 0; i < threads; ++i) {
        if (fibers_[i]->done) continue;
        running_ = i;
        thread = {static_cast<unsigned>(i), 0, 0};
        swapcontext(&scheduler_, &fibers_[i]->context);
      }
      idle = progress_ == before ? idle + 1 : 0;
      CHECK_LT(idle, 3);  // all wait for each other
    }
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  ucontext_t scheduler_;
  const std::function<void()>* body_ = nullptr;
  size_t running_ = 0;
  int alive_ = 0;
  int64_t progress_ = 0;
  std::map<int64_t, Meeting> meetings_;
  std::map<int, std::vector<uint64_t>> exchanged_;
};

inline Fibers& TheFibers() {
  static Fibers* const fibers = new Fibers;
  return *fibers;
}

}  // namespace shoestring::emulated

#define threadIdx (::shoestring::emulated::TheFibers().thread)
#define blockIdx (::shoestring::emulated::TheFibers().block)
#define gridDim (::shoestring::emulated::TheFibers().grid_size)
#define blockDim (::shoestring::emulated::TheFibers().block_size)
#undef __shared__
#define __shared__ static
#undef __grid_constant__
#define __grid_constant__
#undef __launch_bounds__
#define __launch_bounds__(...)
using std::isinf;  // as in device code, without their namespace

// --- what nvcc knows without a header -------------------------------------------------------------------------------

inline void __syncthreads() {
  auto& f = ::shoestring::emulated::TheFibers();
  f.Meet(f.kBlockKey, f.alive());
}
inline void __syncwarp() {
  auto& f = ::shoestring::emulated::TheFibers();
  f.Meet(f.kWarpKey + f.warp(), 32);
}
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __uint_as_float(uint32_t x) { return __builtin_bit_cast(float, x); }
inline uint32_t __float_as_uint(float x) { return __builtin_bit_cast(uint32_t, x); }
template <typename T>
T __shfl_sync(unsigned, T x, int from) {
  static_assert(sizeof(T) == 4);
  const auto word =
      static_cast<uint32_t>(::shoestring::emulated::TheFibers().Exchange(__builtin_bit_cast(uint32_t, x), from % 32));
  return __builtin_bit_cast(T, word);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T x, int step) {
  return __shfl_sync(mask, x, ::shoestring::emulated::TheFibers().lane() ^ step);
}
inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return out;
}
