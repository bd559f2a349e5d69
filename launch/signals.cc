// A thread that waits for signals: no handler, hence no code that must be safe inside one.
#include "launch/signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/log.h"

namespace shoestring {
namespace {

constexpr int kWakeUp = SIGUSR2;  // from the destructor to the thread

sigset_t Signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, kWakeUp}) sigaddset(&set, number);
  // A blocked signal is delivered to who waits for it even if it is ignored, and nohup's promise is that it is not.
  struct sigaction hangup = {};
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
  return set;
}

}  // namespace

void IgnoreClosedPipes() { std::signal(SIGPIPE, SIG_IGN); }

StopRequests::StopRequests(int64_t limit_seconds) {
  const sigset_t set = Signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  waiter_ = std::thread([this, limit_seconds] { Wait(limit_seconds); });
}

StopRequests::~StopRequests() {
  ended_ = true;
  pthread_kill(waiter_.native_handle(), kWakeUp);
  waiter_.join();
  const sigset_t set = Signals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void StopRequests::Wait(int64_t limit_seconds) {
  const sigset_t set = Signals();
  const int64_t start = RealClock().MonotonicNanos();
  bool limited = limit_seconds > 0;
  int interrupts = 0;
  while (!ended_) {
    int64_t left = limit_seconds * 1'000'000'000 - (RealClock().MonotonicNanos() - start);
    if (limited && left <= 0) {
      LogInfo("the time of --exit-after is over: saving after this step");
      stop_ = true;
      limited = false;
    }
    if (!limited) left = int64_t{3600} * 1'000'000'000;
    const timespec timeout{static_cast<time_t>(left / 1'000'000'000), static_cast<long>(left % 1'000'000'000)};
    const int number = sigtimedwait(&set, nullptr, &timeout);
    if (number <= 0 || number == kWakeUp) continue;
    if (number == SIGINT && ++interrupts > 1) _exit(128 + SIGINT);
    LogInfo(absl::StrCat("signal ", number, ": saving after this step",
                         number == SIGINT ? "; once more ends at once" : ""));
    stop_ = true;
  }
}

}  // namespace shoestring
