// A place where threads wait for one another, and that one of them can leave for good.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "absl/status/status.h"

namespace shoestring {

// A barrier for a fixed number of threads that ends with an error, rather than never, when one of them fails.
class Meeting {
 public:
  explicit Meeting(int parties) : parties_(parties) {}

  // Returns when all parties have come; UNAVAILABLE as soon as one has left.
  absl::Status Meet();
  // Nobody meets again.
  void Leave();

 private:
  const int parties_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  int64_t round_ = 0;
  bool left_ = false;
};

}  // namespace shoestring
