// What all bodies share: checking arguments, collecting calls, tickets and counters.
#include "parallel/communicator.h"

#include <algorithm>

#include "base/check.h"
#include "base/clock.h"

namespace shoestring {
namespace {

// Non-decreasing from 0 or later, `members` parts, all inside `rows`.
void CheckOffsets(absl::Span<const int64_t> offsets, int members, int64_t rows) {
  CHECK_EQ(offsets.size(), static_cast<size_t>(members) + 1);
  CHECK_GE(offsets.front(), 0);
  for (int j = 0; j < members; ++j) CHECK_LE(offsets[j], offsets[j + 1]);
  CHECK_LE(offsets.back(), rows);
}

void CheckSameColumns(ConstView a, ConstView b) {
  CHECK(a.dtype == b.dtype);
  CHECK_EQ(a.cols, b.cols);
}

void CheckSummable(DType dtype) { CHECK(dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kI64); }

}  // namespace

Communicator::Communicator(int size, int index) : size_(size), index_(index) {
  CHECK_GE(index, 0);
  CHECK_LT(index, size);
}

absl::Status Communicator::AllToAllV(Stream& stream, ConstView send, absl::Span<const int64_t> send_offsets,
                                     View receive, absl::Span<const int64_t> receive_offsets,
                                     const CallOptions& options) {
  CheckOffsets(send_offsets, size_, send.rows);
  CheckOffsets(receive_offsets, size_, receive.rows);
  CheckSameColumns(send, receive);
  CHECK_EQ(send_offsets[index_ + 1] - send_offsets[index_], receive_offsets[index_ + 1] - receive_offsets[index_]);
  Call& call = AddCall(stream, CallVerb::kAllToAllV, send, receive, -1, options);
  call.send_offsets.assign(send_offsets.begin(), send_offsets.end());
  call.receive_offsets.assign(receive_offsets.begin(), receive_offsets.end());
  return MakeUnlessCollecting(stream);
}

absl::Status Communicator::AllGatherV(Stream& stream, ConstView send, View receive, absl::Span<const int64_t> offsets,
                                      const CallOptions& options) {
  CheckOffsets(offsets, size_, receive.rows);
  CheckSameColumns(send, receive);
  CHECK_EQ(send.rows, offsets[index_ + 1] - offsets[index_]);
  Call& call = AddCall(stream, CallVerb::kAllGatherV, send, receive, -1, options);
  call.receive_offsets.assign(offsets.begin(), offsets.end());
  return MakeUnlessCollecting(stream);
}

absl::Status Communicator::ReduceScatter(Stream& stream, ConstView send, View receive, const CallOptions& options) {
  CheckSummable(send.dtype);
  CheckSameColumns(send, receive);
  CHECK_EQ(send.rows, size_ * receive.rows);
  AddCall(stream, CallVerb::kReduceScatter, send, receive, -1, options);
  return MakeUnlessCollecting(stream);
}

absl::Status Communicator::AllReduce(Stream& stream, View x, const CallOptions& options) {
  CheckSummable(x.dtype);
  AddCall(stream, CallVerb::kAllReduce, x, x, -1, options);
  return MakeUnlessCollecting(stream);
}

absl::Status Communicator::Broadcast(Stream& stream, View x, int root, const CallOptions& options) {
  CHECK(root >= 0 && root < size_);
  AddCall(stream, CallVerb::kBroadcast, x, x, root, options);
  return MakeUnlessCollecting(stream);
}

absl::Status Communicator::Send(Stream& stream, ConstView x, int to, const CallOptions& options) {
  CHECK(to >= 0 && to < size_);
  AddCall(stream, CallVerb::kSend, x, View(), to, options);
  return MakeUnlessCollecting(stream);
}

absl::Status Communicator::Receive(Stream& stream, View x, int from, const CallOptions& options) {
  CHECK(from >= 0 && from < size_);
  AddCall(stream, CallVerb::kReceive, ConstView(), x, from, options);
  return MakeUnlessCollecting(stream);
}

void Communicator::GroupBegin() {
  CHECK(!collecting_);
  collecting_ = true;
  collected_stream_ = nullptr;
}

absl::Status Communicator::GroupEnd() {
  CHECK(collecting_);
  collecting_ = false;
  if (next_ == nullptr) return failure_;
  CallGroup& group = *next_;
  next_ = nullptr;
  if (!failure_.ok()) {
    idle_.push_back(&group);
    return failure_;
  }
  Start(*collected_stream_, group, /*background=*/false);
  return Complete(*collected_stream_, group);
}

absl::StatusOr<Ticket> Communicator::GroupStart(Stream& stream) {
  CHECK(collecting_);
  CHECK(collected_stream_ == nullptr || collected_stream_ == &stream);
  collecting_ = false;
  CallGroup& group = NextGroup();
  next_ = nullptr;
  if (!failure_.ok()) {
    idle_.push_back(&group);
    return failure_;
  }
  group.ticket_ = ++last_ticket_;
  in_flight_.push_back(&group);
  Start(stream, group, /*background=*/true);
  return Ticket{group.ticket_};
}

absl::Status Communicator::Wait(Stream& stream, Ticket ticket) {
  CHECK(!collecting_);
  const auto found = std::find_if(in_flight_.begin(), in_flight_.end(),
                                  [ticket](const CallGroup* group) { return group->ticket_ == ticket.id; });
  CHECK(found != in_flight_.end());  // a ticket of this communicator that was not waited for
  CallGroup& group = **found;
  in_flight_.erase(found);
  return Complete(stream, group);
}

void Communicator::Abort(const absl::Status& why) {
  CHECK(!why.ok());
  if (!failure_.ok()) return;
  failure_ = why;
  DoAbort(why);
}

CallGroup& Communicator::NextGroup() {
  if (next_ != nullptr) return *next_;
  if (idle_.empty()) {
    groups_.push_back(NewGroup());
    idle_.push_back(groups_.back().get());
  }
  next_ = idle_.back();
  idle_.pop_back();
  next_->count_ = 0;
  return *next_;
}

Call& Communicator::AddCall(Stream& stream, CallVerb verb, ConstView send, View receive, int peer,
                            const CallOptions& options) {
  if (collected_stream_ == nullptr || !collecting_) collected_stream_ = &stream;
  CHECK(collected_stream_ == &stream);  // of all calls of a group
  CHECK(collecting_ || IsCollective(verb) || peer != index_);
  CallGroup& group = NextGroup();
  if (group.count_ == group.calls_.size()) group.calls_.emplace_back().name.reserve(kUsualNameBytes);
  Call& call = group.calls_[group.count_++];
  call.verb = verb;
  call.name.assign(options.name.data(), options.name.size());
  call.timeout_s = options.timeout_s;
  call.peer = peer;
  call.send = send;
  call.receive = receive;
  return call;
}

absl::Status Communicator::MakeUnlessCollecting(Stream& stream) {
  if (collecting_) return absl::OkStatus();
  CallGroup& group = *next_;
  next_ = nullptr;
  if (!failure_.ok()) {
    idle_.push_back(&group);
    return failure_;
  }
  Start(stream, group, /*background=*/false);
  return Complete(stream, group);
}

void Communicator::Start(Stream& stream, CallGroup& group, bool background) {
  CheckSelfPairs(group);
  for (const Call& call : group.calls()) Count(call);
  const int64_t now = RealClock().MonotonicNanos();
  group.times = {.started = now, .arrived = now, .done = now, .wait_began = now, .wait_ended = now};
  DoStart(stream, group, background);
}

absl::Status Communicator::Complete(Stream& stream, CallGroup& group) {
  absl::Status status = failure_;
  if (group.ticket_ != 0) group.times.wait_began = RealClock().MonotonicNanos();
  if (status.ok()) status = DoWait(stream, group);
  group.times.wait_ended = RealClock().MonotonicNanos();
  group.ticket_ = 0;
  last_times_ = group.times;
  if (listener_ != nullptr && !group.calls().empty()) listener_->Completed(group.calls()[0].name, group.times);
  idle_.push_back(&group);
  if (!status.ok() && failure_.ok()) failure_ = status;
  return failure_;
}

// Sends to oneself and their receives, in order: each pair has one shape.
void Communicator::CheckSelfPairs(const CallGroup& group) const {
  const absl::Span<const Call> calls = group.calls();
  const auto is_self = [this, calls](size_t i, CallVerb verb) {
    return calls[i].verb == verb && calls[i].peer == index_;
  };
  size_t receive = 0;
  for (size_t send = 0; send < calls.size(); ++send) {
    if (!is_self(send, CallVerb::kSend)) continue;
    while (receive < calls.size() && !is_self(receive, CallVerb::kReceive)) ++receive;
    CHECK(receive < calls.size());  // a send to oneself without its receive
    CheckSameColumns(calls[send].send, calls[receive].receive);
    CHECK_EQ(calls[send].send.rows, calls[receive].receive.rows);
    ++receive;
  }
  while (receive < calls.size() && !is_self(receive, CallVerb::kReceive)) ++receive;
  CHECK(receive == calls.size());  // a receive from oneself without its send
}

void Communicator::Count(const Call& call) {
  VerbCounters& counters = counters_[call.verb];
  ++counters.calls;
  const int64_t row_bytes = BytesOf(call.shape().dtype, call.shape().cols);
  const auto sent = [&](int64_t rows, int64_t times) {
    if (rows * row_bytes == 0) return;
    counters.messages_sent += times;
    counters.bytes_sent += times * rows * row_bytes;
  };
  const auto received = [&](int64_t rows, int64_t times) {
    if (rows * row_bytes == 0) return;
    counters.messages_received += times;
    counters.bytes_received += times * rows * row_bytes;
  };
  const int others = size_ - 1;
  switch (call.verb) {
    case CallVerb::kAllToAllV:
      for (int j = 0; j < size_; ++j) {
        if (j == index_) continue;
        sent(call.send_offsets[j + 1] - call.send_offsets[j], 1);
        received(call.receive_offsets[j + 1] - call.receive_offsets[j], 1);
      }
      break;
    case CallVerb::kAllGatherV:
      sent(call.send.rows, others);
      for (int j = 0; j < size_; ++j) {
        if (j != index_) received(call.receive_offsets[j + 1] - call.receive_offsets[j], 1);
      }
      break;
    case CallVerb::kReduceScatter:
    case CallVerb::kAllReduce:
      sent(call.receive.rows, others);
      received(call.receive.rows, others);
      break;
    case CallVerb::kBroadcast:
      if (call.peer == index_) sent(call.receive.rows, others);
      if (call.peer != index_) received(call.receive.rows, 1);
      break;
    case CallVerb::kSend:
      if (call.peer != index_) sent(call.send.rows, 1);
      break;
    case CallVerb::kReceive:
      if (call.peer != index_) received(call.receive.rows, 1);
      break;
  }
}

}  // namespace shoestring
