// Requests to stop: signals and a time limit raise a flag that the training loop looks at after each step.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

namespace shoestring {

// A reader of standard output or error that goes away (`... 2>&1 | head`) no longer ends the process, until its end:
// writing there fails, and that is all. What is said is in the run's log too.
void IgnoreClosedPipes();

// From construction to destruction SIGTERM, SIGINT, SIGUSR1 and SIGHUP raise stop() instead of ending the process; a
// second SIGINT ends it at once (exit code 130). SIGHUP does nothing where it was ignored before (nohup). Construct
// before any other thread starts: threads inherit the blocked signals, and a thread of this object's own waits for
// them. One at a time.
class StopRequests {
 public:
  // `limit_seconds` after construction stop() is raised too; 0: never.
  explicit StopRequests(int64_t limit_seconds);
  ~StopRequests();
  StopRequests(const StopRequests&) = delete;
  StopRequests& operator=(const StopRequests&) = delete;

  const std::atomic<bool>& stop() const { return stop_; }

 private:
  void Wait(int64_t limit_seconds);

  std::atomic<bool> stop_{false};
  std::atomic<bool> ended_{false};
  std::thread waiter_;
};

}  // namespace shoestring
