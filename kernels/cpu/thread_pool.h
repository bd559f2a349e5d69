// A fork-join pool of threads: the calling thread takes part, and a call allocates nothing.
//
// Why not OpenMP: its run-time is opaque to thread sanitizers, and two run-times in one process fight for the cores.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace shoestring {

class ThreadPool {
 public:
  // fn(task, worker): `worker` in [0, threads()) names the executing thread for the duration of the call, so that it
  // can index scratch; which worker gets which task is not determined, hence must not decide any result.
  using TaskFn = absl::FunctionRef<void(int64_t task, int worker)>;
  // fn(begin, end, worker) over a half-open range of items.
  using RangeFn = absl::FunctionRef<void(int64_t begin, int64_t end, int worker)>;

  // `threads` >= 1 counts the caller; where the system gives no more, there are fewer. `spin` is how often an idle
  // thread looks for work before it sleeps: about 0.1 ms at the default. Pass 0 where ranks outnumber cores: a spinning
  // rank then takes the core from one that works.
  explicit ThreadPool(int threads, int spin = 2000);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs fn for every task in [0, tasks) and returns when all are done. Tasks are handed out one by one, in order, to
  // whoever is free. One call at a time; not to be called from inside a task.
  void ParallelFor(int64_t tasks, TaskFn fn);

  // Runs fn over at most threads() contiguous ranges of nearly equal length, each a multiple of `grain` but the last.
  // For elementwise work: the split depends on (items, grain, threads()) alone.
  void ParallelRanges(int64_t items, int64_t grain, RangeFn fn);

 private:
  void WorkerLoop(int worker);
  void RunTasks(int worker);
  bool TryEnter();
  void Leave();

  const int spin_;
  // The current call; written by the caller while the gate is closed and nobody is inside.
  const TaskFn* fn_ = nullptr;
  int64_t tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_task_{0};
  // Open bit and count of workers inside. A worker that wakes late finds the gate closed and goes back to sleep, so a
  // call never waits for a thread that the system has not scheduled yet.
  alignas(64) std::atomic<uint32_t> gate_{0};
  alignas(64) std::atomic<uint32_t> signal_{0};  // grows by one a call; idle workers wait on it
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace shoestring
