// What a communicator is asked to do and what it tells of it: calls, groups of calls, counters and times.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace shoestring {

enum class CallVerb { kAllToAllV, kAllGatherV, kReduceScatter, kAllReduce, kBroadcast, kSend, kReceive };
constexpr int kVerbs = 7;
const char* Name(CallVerb verb);  // "all_to_all_v", ...
// Whether every member of the group makes the call.
constexpr bool IsCollective(CallVerb verb) { return verb != CallVerb::kSend && verb != CallVerb::kReceive; }

// Of one call; names appear in logs, in traces and in the report of a rank that hangs.
struct CallOptions {
  absl::string_view name;    // "dispatch layer 3"; the same at every member that the call joins; copied
  double timeout_s = 600.0;  // from the moment the call is made (of a group: started) until it is complete
};

constexpr size_t kUsualNameBytes = 64;  // room made beforehand for names; longer ones are legal

// One call as it was made.
struct Call {
  CallVerb verb = CallVerb::kSend;
  std::string name;
  double timeout_s = 0;
  int peer = -1;  // root, to, from; -1: none
  ConstView send;
  View receive;
  std::vector<int64_t> send_offsets;     // of kAllToAllV
  std::vector<int64_t> receive_offsets;  // of kAllToAllV and kAllGatherV

  ConstView shape() const { return verb == CallVerb::kSend ? send : ConstView(receive); }
};

// What the members of one call must agree on, apart from the rows of each.
struct CallSignature {
  CallVerb verb = CallVerb::kSend;
  std::string name;
  DType dtype = DType::kF32;
  int64_t rows = -1;  // -1: every member has its own
  int64_t cols = 0;
  int peer = -1;

  void Assign(const Call& call);  // keeps the memory of `name`
  // Are these one collective, or (`this` a send) the two ends of one message?
  bool Agrees(const CallSignature& other) const;
  std::string ToString() const;  // "broadcast 'weights' f32 [2, 3] from member 1"
};

// When things happened to a completed group of calls: nanoseconds of RealClock().MonotonicNanos().
// wait_began..wait_ended is communication that nothing hid; started..done is how long it was in flight.
struct CallTimes {
  int64_t started = 0;
  int64_t arrived = 0;     // the data of the last peer was there; not before `started`
  int64_t done = 0;        // outputs were written
  int64_t wait_began = 0;  // of calls that were not started apart: = started
  int64_t wait_ended = 0;
};

// Calls that start as one. Bodies derive from it what they keep for each; communicators use an object again and again,
// so that after the first steps nothing is allocated.
class CallGroup {
 public:
  virtual ~CallGroup() = default;
  absl::Span<const Call> calls() const { return {calls_.data(), count_}; }

  CallTimes times;  // bodies set `arrived` and `done`

 private:
  friend class Communicator;
  std::vector<Call> calls_;
  size_t count_ = 0;
  int64_t ticket_ = 0;
};

// What one member sent and received by one verb, counted when calls start. A message is what one member has for
// another in one call; rows that stay at the member and messages without elements count nowhere. Counted is what the
// verb means, not what a body does for it: all_gather_v sends the member's rows to each of the others, reduce_scatter
// each of the others' parts, all_reduce x to each, broadcast x from the root to each.
struct VerbCounters {
  int64_t calls = 0;
  int64_t messages_sent = 0;
  int64_t bytes_sent = 0;
  int64_t messages_received = 0;
  int64_t bytes_received = 0;
  friend bool operator==(const VerbCounters&, const VerbCounters&) = default;
};

struct CommunicationCounters {
  std::array<VerbCounters, kVerbs> verbs;
  VerbCounters& operator[](CallVerb verb) { return verbs[static_cast<int>(verb)]; }
  const VerbCounters& operator[](CallVerb verb) const { return verbs[static_cast<int>(verb)]; }
  VerbCounters Total() const;
  friend bool operator==(const CommunicationCounters&, const CommunicationCounters&) = default;
};

}  // namespace shoestring
