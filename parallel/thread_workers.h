// A few threads that run what is ready: they move the data of asynchronous calls while the ranks compute.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace shoestring {

class ThreadWorkers {
 public:
  // A piece of work that never waits for another. Scheduled at most once at a time; owned by the caller.
  class Task {
   public:
    virtual ~Task() = default;
    virtual void Run() = 0;

   private:
    friend class ThreadWorkers;
    Task* next_ = nullptr;
  };

  // Threads are started by the first Schedule.
  explicit ThreadWorkers(int threads);
  // Ends the threads; tasks that have not begun are dropped.
  ~ThreadWorkers();

  // In order of calls. `task` must live until it has run or the workers are gone. Thread-safe.
  void Schedule(Task& task);

 private:
  void Work();

  const int thread_count_;
  std::mutex mutex_;
  std::condition_variable ready_;
  Task* first_ = nullptr;
  Task* last_ = nullptr;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace shoestring
