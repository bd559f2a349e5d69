// A queue of tasks and the threads that empty it.
#include "parallel/thread_workers.h"

#include "base/check.h"

namespace shoestring {

ThreadWorkers::ThreadWorkers(int threads) : thread_count_(threads) { CHECK_GT(threads, 0); }

ThreadWorkers::~ThreadWorkers() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadWorkers::Schedule(Task& task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  task.next_ = nullptr;
  (first_ == nullptr ? first_ : last_->next_) = &task;
  last_ = &task;
  while (static_cast<int>(threads_.size()) < thread_count_) threads_.emplace_back([this] { Work(); });
  ready_.notify_one();
}

void ThreadWorkers::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    ready_.wait(lock, [this] { return ending_ || first_ != nullptr; });
    if (ending_) return;
    Task& task = *first_;
    first_ = task.next_;
    lock.unlock();
    task.Run();
    lock.lock();
  }
}

}  // namespace shoestring
