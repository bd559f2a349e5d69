// What the ranks of a group say to each other: NCCL's verbs over views, behind one interface.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "parallel/communicator_call.h"

namespace shoestring {

// A group of calls in flight.
struct Ticket {
  int64_t id = 0;
  explicit operator bool() const { return id != 0; }
};

// The ranks of one RankGroup; `index` below is the place in that group. One object per rank and group, used by one
// thread at a time. Every member makes the same collective calls in the same order, with the same names and matching
// shapes; between two members each Send meets the Receive that stands at the same place among the calls of the two:
// in order of the messages of that pair, after the same collectives, with the same name, dtype and shape. Groups may
// collect the calls differently at different members.
//
// Completion. A call enqueues its work on `stream`, behind what was enqueued there before, and returns. Input may be
// reused, and output is there, for later work on the same stream; the host may touch either only after
// Backend::Synchronize. Between GroupBegin and GroupEnd calls are only collected, GroupEnd makes them as one; they may
// be sends and receives in any order that pairs up. GroupStart instead of GroupEnd starts what was collected and
// returns at once: the data moves while the rank computes. From then until Wait with the ticket has returned, inputs
// (not to be written) and outputs (not to be touched) belong to the communicator; later work on Wait's stream sees the
// outputs. Any number of tickets may be in flight and waited for in any order, and other calls made meanwhile; calls
// count as made, for the order above, when they are started. Nothing is a barrier: a member may leave a call before
// another has entered it.
//
// Sends. In bodies of host memory a Send waits for nobody, and what is in flight keeps no later Send and no message of
// another pair back. NCCL promises less: a Send may end only with its Receive, and the calls of one communicator run
// one after the other. A program that is to run on it too puts sends and receives that wait for each other into one
// group, or into communicators of their own.
//
// Failure. Calls that are collected return OK; what went wrong is told by GroupEnd, or by Wait. Messages name call,
// group and member:
//   DEADLINE_EXCEEDED     the deadline passed before the members that are named had made the call;
//   UNAVAILABLE           a member that the call needs has destroyed its communicator or failed before it made the call
//                         (the status says why, if it is known); or any member has called Abort;
//   FAILED_PRECONDITION   two members make different calls (verb, name, dtype, shape, root) at one place; both are
//                         named. Every member gets it, from the call that is under way or from its next one
//                         (NCCL compares nothing: there it is a deadline).
// After any of them the communicator is dead: it touches none of the caller's memory any more, every later call and
// Wait returns the first failure's status, and the group must be built anew. What a single member can see is wrong
// aborts: a view that is too small, an unsorted offset, a send to itself without its receive.
//
// Sums of reducing verbs are made in the dtype of the view, which is f32, f64 or i64 (others abort), in the order that
// the body documents; the canonical order of gradients is made by its caller from point-to-point verbs, never by
// AllReduce (docs/numerics.md). Views without rows are legal everywhere. Views may have a stride.
class Communicator {
 public:
  // Told of every call, or group of calls under the name of its first, when it is complete; by the thread that made it.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void Completed(absl::string_view name, const CallTimes& times) = 0;
  };
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual absl::string_view body() const = 0;  // "single", "host", "thread", "staged", "nccl", ...
  int size() const { return size_; }
  int index() const { return index_; }

  // Rows [send_offsets[j], send_offsets[j + 1]) of `send` go to member j; rows from member j land at
  // [receive_offsets[j], receive_offsets[j + 1]) of `receive`. Offsets have size() + 1 entries, in host memory, and are
  // copied. Same columns and dtype everywhere.
  absl::Status AllToAllV(Stream& stream, ConstView send, absl::Span<const int64_t> send_offsets, View receive,
                         absl::Span<const int64_t> receive_offsets, const CallOptions& options);
  // Every member gets the rows of all, member j's at [offsets[j], offsets[j + 1]). `send` may be its own place there.
  absl::Status AllGatherV(Stream& stream, ConstView send, View receive, absl::Span<const int64_t> offsets,
                          const CallOptions& options);
  // receive = the sum over members of their rows [index * R, (index + 1) * R), R = receive.rows. `receive` may be the
  // member's own place in `send`.
  absl::Status ReduceScatter(Stream& stream, ConstView send, View receive, const CallOptions& options);
  // x = the sum over members of x, in place.
  absl::Status AllReduce(Stream& stream, View x, const CallOptions& options);
  // x of member `root` everywhere.
  absl::Status Broadcast(Stream& stream, View x, int root, const CallOptions& options);
  // Between two members, matched in order of calls. A member may send to itself only inside a group, which then also
  // holds the receive.
  absl::Status Send(Stream& stream, ConstView x, int to, const CallOptions& options);
  absl::Status Receive(Stream& stream, View x, int from, const CallOptions& options);

  // Groups do not nest. The calls of a group name one stream, which is also GroupStart's.
  void GroupBegin();
  absl::Status GroupEnd();
  // Fails only when the communicator is dead. Every ticket must be waited for once, unless the communicator is
  // destroyed before, which lets go of the memory.
  absl::StatusOr<Ticket> GroupStart(Stream& stream);
  absl::Status Wait(Stream& stream, Ticket ticket);

  // Gives the group up: every call of the other members that is not complete fails with UNAVAILABLE, this member and
  // `why` named; this member's own later calls return `why`, which must be an error. Must not be called while another
  // thread uses this communicator.
  void Abort(const absl::Status& why);

  const CommunicationCounters& counters() const { return counters_; }
  void ResetCounters() { counters_ = {}; }
  // Of the call or group that completed last: by its own return, GroupEnd or Wait.
  const CallTimes& last_times() const { return last_times_; }
  // Null: nobody. The listener outlives the communicator or its own removal.
  void SetListener(Listener* listener) { listener_ = listener; }
  // The first failure, or OK.
  const absl::Status& failure() const { return failure_; }

 protected:
  Communicator(int size, int index);

 private:
  // What a body does. Arguments are checked. A group belongs to the body from DoStart until DoWait has returned for it
  // or for any other group with an error. DoStart never fails; DoWait follows for every group, at once unless
  // `background`.
  virtual std::unique_ptr<CallGroup> NewGroup() = 0;
  virtual void DoStart(Stream& stream, CallGroup& group, bool background) = 0;
  virtual absl::Status DoWait(Stream& stream, CallGroup& group) = 0;
  virtual void DoAbort(const absl::Status& why) = 0;

  CallGroup& NextGroup();  // empty, or with the calls collected so far
  Call& AddCall(Stream& stream, CallVerb verb, ConstView send, View receive, int peer, const CallOptions& options);
  absl::Status MakeUnlessCollecting(Stream& stream);  // the call that was added last
  void Start(Stream& stream, CallGroup& group, bool background);
  absl::Status Complete(Stream& stream, CallGroup& group);
  void CheckSelfPairs(const CallGroup& group) const;
  void Count(const Call& call);

  const int size_;
  const int index_;
  absl::Status failure_;
  CommunicationCounters counters_;
  Listener* listener_ = nullptr;
  CallTimes last_times_;
  int64_t last_ticket_ = 0;
  bool collecting_ = false;
  Stream* collected_stream_ = nullptr;
  CallGroup* next_ = nullptr;  // takes the calls that are made
  std::vector<std::unique_ptr<CallGroup>> groups_;
  std::vector<CallGroup*> idle_;
  std::vector<CallGroup*> in_flight_;
};

}  // namespace shoestring
