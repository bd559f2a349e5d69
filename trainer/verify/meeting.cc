// Counts who waits; the last one lets the others go.
#include "trainer/verify/meeting.h"

namespace shoestring {

absl::Status Meeting::Meet() {
  std::unique_lock<std::mutex> lock(mutex_);
  const int64_t round = round_;
  if (!left_ && ++waiting_ == parties_) {
    waiting_ = 0;
    ++round_;
    changed_.notify_all();
    return absl::OkStatus();
  }
  changed_.wait(lock, [&] { return left_ || round_ != round; });
  return round_ != round ? absl::OkStatus() : absl::UnavailableError("another rank has failed");
}

void Meeting::Leave() {
  const std::lock_guard<std::mutex> lock(mutex_);
  left_ = true;
  changed_.notify_all();
}

}  // namespace shoestring
