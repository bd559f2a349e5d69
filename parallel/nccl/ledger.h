// Which calls of an NCCL communicator are under way, and when one of them must be given up: a state machine without
// threads, clock or device.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "parallel/nccl/library.h"

namespace shoestring {

// Who speaks; opens every message.
struct NcclWho {
  std::string group;       // RankGroup::name
  std::vector<int> ranks;  // world ranks of the members, in order
  int index = 0;           // this member
  // "rank 3, member 1 of 8 of group 'expert of position 0'"
  std::string ToString() const;
};

// Of what a result is, as a sentence's end: "a peer or the network failed".
absl::string_view NcclResultText(NcclResult result);
absl::StatusCode NcclResultCode(NcclResult result);

// One call between its beginning and its completion. Holds no memory of its own: the hot path makes one a call.
struct NcclCall {
  static constexpr int kPeers = 8;
  void SetName(absl::string_view text);  // what does not fit is cut off
  void AddPeer(int member);              // beyond kPeers it is only known that there are more

  absl::string_view verb;           // "all_to_all_v"; a literal
  std::array<char, 64> name{};      // CallOptions::name: the action
  std::array<int, kPeers> peers{};  // members it exchanges with
  int peer_count = 0;               // of `peers`; all_members: of no interest
  bool all_members = false;
  int64_t sequence = 0;  // counts the calls of this communicator; equal on all members that make the same calls
  double began_s = 0;    // monotonic clock
  double timeout_s = 0;
  int event = -1;  // slot of the event behind it on the device; -1: not yet enqueued
};

class NcclLedger {
 public:
  // `slots`: most calls under way; their room is taken now, nothing later.
  NcclLedger(NcclWho who, int slots);

  // A call begins; its reference stays good until the next Begin or Reap.
  NcclCall& Begin(absl::string_view verb, absl::string_view name, double now_s, double timeout_s);
  // The newest call was given up before it was enqueued.
  void DropNewest();
  // Forgets the enqueued calls for whose event `done` says true; returns how many.
  int Reap(absl::FunctionRef<bool(int event)> done);

  // What to give the communicator up for, if anything: `state` as NCCL reports it, or the call whose deadline passed
  // longest ago. UNAVAILABLE, INTERNAL or DEADLINE_EXCEEDED; the message names rank, group, verb, action and peers.
  std::optional<absl::Status> Judge(double now_s, NcclResult state, absl::string_view last_error) const;
  // The same for a failed call of NCCL's, of the newest call.
  absl::Status Failed(NcclResult result, absl::string_view last_error) const;

  // When the next deadline passes; none: no call is under way.
  std::optional<double> NextDeadline() const;
  int under_way() const { return static_cast<int>(calls_.size()); }
  int64_t calls() const { return next_sequence_; }
  const NcclWho& who() const { return who_; }

 private:
  std::string Describe(const NcclCall& call) const;

  NcclWho who_;
  std::vector<NcclCall> calls_;  // in order of beginning
  int64_t next_sequence_ = 0;
};

}  // namespace shoestring
