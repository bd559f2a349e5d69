// The fork-join pool: a gate lets awake workers into the current call, an atomic counter hands out its tasks.
#include "kernels/cpu/thread_pool.h"

#include <algorithm>

#include "base/check.h"
#include "base/threads.h"

namespace shoestring {
namespace {

constexpr uint32_t kOpen = 0x80000000u;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads, int spin) : spin_(spin) {
  CHECK_GE(threads, 1);
  CHECK_GE(spin, 0);
  workers_ = StartThreads(threads - 1, [this](int i) { WorkerLoop(i + 1); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  signal_.fetch_add(1, std::memory_order_release);
  signal_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t tasks, TaskFn fn) {
  if (tasks <= 1 || workers_.empty()) {
    for (int64_t task = 0; task < tasks; ++task) fn(task, 0);
    return;
  }
  CHECK_EQ(gate_.load(std::memory_order_acquire), 0u);  // one call at a time, none inside a task
  fn_ = &fn;
  tasks_ = tasks;
  next_task_.store(0, std::memory_order_relaxed);
  gate_.store(kOpen, std::memory_order_release);
  signal_.fetch_add(1, std::memory_order_release);
  signal_.notify_all();
  RunTasks(0);
  uint32_t inside = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  for (int i = 0; inside != 0 && i < spin_; ++i) {
    Pause();
    inside = gate_.load(std::memory_order_acquire);
  }
  while (inside != 0) {
    gate_.wait(inside, std::memory_order_acquire);
    inside = gate_.load(std::memory_order_acquire);
  }
}

void ThreadPool::ParallelRanges(int64_t items, int64_t grain, RangeFn fn) {
  CHECK_GE(grain, 1);
  if (items <= 0) return;
  const int64_t grains = (items + grain - 1) / grain;
  const int64_t ranges = std::min<int64_t>(threads(), grains);
  ParallelFor(ranges, [&](int64_t range, int worker) {
    const int64_t begin = grains * range / ranges * grain;
    const int64_t end = std::min(items, grains * (range + 1) / ranges * grain);
    fn(begin, end, worker);
  });
}

void ThreadPool::WorkerLoop(int worker) {
  uint32_t seen = 0;
  while (true) {
    for (int i = 0; i < spin_ && signal_.load(std::memory_order_relaxed) == seen; ++i) Pause();
    signal_.wait(seen, std::memory_order_acquire);
    seen = signal_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!TryEnter()) continue;
    RunTasks(worker);
    Leave();
  }
}

void ThreadPool::RunTasks(int worker) {
  const TaskFn& fn = *fn_;
  const int64_t tasks = tasks_;
  for (int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed); task < tasks;
       task = next_task_.fetch_add(1, std::memory_order_relaxed)) {
    fn(task, worker);
  }
}

bool ThreadPool::TryEnter() {
  uint32_t gate = gate_.load(std::memory_order_relaxed);
  while (gate & kOpen) {
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
  }
  return false;
}

void ThreadPool::Leave() {
  // Only the last one out of a closed gate has somebody to wake.
  if (gate_.fetch_sub(1, std::memory_order_release) == 1) gate_.notify_one();
}

}  // namespace shoestring
