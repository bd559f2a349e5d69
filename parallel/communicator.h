// What the ranks of a group say to each other: NCCL's verbs over views, behind one interface.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace shoestring {

// Of one call; names appear in logs and in the report of a rank that hangs.
struct CallOptions {
  absl::string_view name;    // "dispatch layer 3"; must outlive the call
  double timeout_s = 600.0;  // from the moment the call is made; at most this long until it is complete or has failed
};

// The ranks of one RankGroup; `index` below is the place in that group. One object per rank and group, used by one
// thread at a time. Every member makes the same calls in the same order with matching shapes.
//
// Completion. A call enqueues its work on `stream`, behind what was enqueued there before, and returns. Input may be
// reused, and output is there, for later work on the same stream; the host may touch either only after
// Backend::Synchronize. Between GroupBegin and GroupEnd calls are only collected, GroupEnd starts them as one; they may
// be sends and receives in any order that pairs up. Nothing is a barrier: a member may leave a call before another has
// entered it.
//
// Failure. DEADLINE_EXCEEDED when the deadline passed, UNAVAILABLE when a peer is gone; both name the call and the
// peer. After either the communicator is dead: every later call fails with the first failure's status, and the group
// must be built anew. Mismatched shapes and dtypes abort: they are errors of the programmer. Sums of reducing verbs are
// in FP32 (or FP64 or I64), in the order that the body documents; the canonical order of gradients is made by its
// caller from point-to-point verbs, never by AllReduce (docs/numerics.md).
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual absl::string_view body() const = 0;  // "single", "host", "thread", "nccl", ...
  virtual int size() const = 0;
  virtual int index() const = 0;

  // Rows [send_offsets[j], send_offsets[j + 1]) of `send` go to member j; rows from member j land at
  // [receive_offsets[j], receive_offsets[j + 1]) of `receive`. Offsets have size() + 1 entries. Same columns and dtype.
  virtual absl::Status AllToAllV(Stream& stream, ConstView send, absl::Span<const int64_t> send_offsets, View receive,
                                 absl::Span<const int64_t> receive_offsets, const CallOptions& options) = 0;
  // Every member gets the rows of all, member j's at [offsets[j], offsets[j + 1]).
  virtual absl::Status AllGatherV(Stream& stream, ConstView send, View receive, absl::Span<const int64_t> offsets,
                                  const CallOptions& options) = 0;
  // receive = the sum over members of their rows [index * R, (index + 1) * R), R = receive.rows.
  virtual absl::Status ReduceScatter(Stream& stream, ConstView send, View receive, const CallOptions& options) = 0;
  // x = the sum over members of x, in place.
  virtual absl::Status AllReduce(Stream& stream, View x, const CallOptions& options) = 0;
  // x of member `root` everywhere.
  virtual absl::Status Broadcast(Stream& stream, View x, int root, const CallOptions& options) = 0;
  // Between two members, matched in order of calls. A member may send to itself only inside a group.
  virtual absl::Status Send(Stream& stream, ConstView x, int to, const CallOptions& options) = 0;
  virtual absl::Status Receive(Stream& stream, View x, int from, const CallOptions& options) = 0;

  // Groups do not nest. GroupEnd returns the first failure.
  virtual void GroupBegin() = 0;
  virtual absl::Status GroupEnd() = 0;
};

}  // namespace shoestring
