// The real clock: clock_gettime and clock_nanosleep.
#include "base/clock.h"

#include <cerrno>
#include <ctime>

#include "base/check.h"

namespace shoestring {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;

int64_t ReadNanos(clockid_t id) {
  timespec now{};
  CHECK_EQ(clock_gettime(id, &now), 0);
  return int64_t{now.tv_sec} * kNanosPerSecond + now.tv_nsec;
}

class SystemClock final : public Clock {
 public:
  int64_t MonotonicNanos() override { return ReadNanos(CLOCK_MONOTONIC); }
  int64_t WallNanos() override { return ReadNanos(CLOCK_REALTIME); }
  void SleepNanos(int64_t nanos) override {
    if (nanos <= 0) return;
    timespec left{static_cast<time_t>(nanos / kNanosPerSecond), static_cast<long>(nanos % kNanosPerSecond)};
    // A signal may cut the sleep short; the rest is still owed.
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
  }
};

}  // namespace

Clock& RealClock() {
  static SystemClock* const clock = new SystemClock;  // never destroyed: used until the last line is logged
  return *clock;
}

}  // namespace shoestring
