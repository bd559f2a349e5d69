// Time as an argument: the real clock, and one that tests move by hand.
#pragma once

#include <cstdint>

namespace shoestring {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since an arbitrary origin; never goes back. For durations.
  virtual int64_t MonotonicNanos() = 0;
  // Nanoseconds since the Unix epoch. For time stamps only.
  virtual int64_t WallNanos() = 0;
  virtual void SleepNanos(int64_t nanos) = 0;

  double MonotonicSeconds() { return static_cast<double>(MonotonicNanos()) * 1e-9; }
};

// The process-wide real clock; stateless, lives for ever.
Clock& RealClock();

// A clock that stands still until told to move; sleeping moves it.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(int64_t start_nanos = 0) : nanos_(start_nanos) {}
  int64_t MonotonicNanos() override { return nanos_; }
  int64_t WallNanos() override { return nanos_; }
  void SleepNanos(int64_t nanos) override { nanos_ += nanos; }
  void Advance(int64_t nanos) { nanos_ += nanos; }

 private:
  int64_t nanos_;
};

}  // namespace shoestring
