// Inputs go to the host before the inner calls start, outputs come from it after they are complete.
#include "parallel/staged_communicator.h"

#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

// Rows [first, first + count) of a view: those that a call reads of its `send`, or writes of its `receive`.
struct Range {
  int64_t first = 0;
  int64_t count = 0;
};

Range Between(absl::Span<const int64_t> offsets) { return {offsets.front(), offsets.back() - offsets.front()}; }

Range Input(const Call& call, int index) {
  if (call.verb == CallVerb::kBroadcast && call.peer != index) return {};
  return call.verb == CallVerb::kAllToAllV ? Between(call.send_offsets) : Range{0, call.send.rows};
}

Range Output(const Call& call, int index) {
  if (call.verb == CallVerb::kBroadcast && call.peer == index) return {};
  const bool parts = call.verb == CallVerb::kAllToAllV || call.verb == CallVerb::kAllGatherV;
  return parts ? Between(call.receive_offsets) : Range{0, call.receive.rows};
}

// Sums and broadcasts happen where the input lies.
bool InPlace(CallVerb verb) { return verb == CallVerb::kAllReduce || verb == CallVerb::kBroadcast; }

// Calls fn(part of `device`, part of `host`) for the parts of a range that have no gaps.
template <typename DeviceView, typename Fn>
void ForEachPart(const DeviceView& device, const View& host, const Range& range, Fn fn) {
  const int64_t step = device.contiguous() ? range.count : 1;
  for (int64_t row = 0; row < range.count && device.cols > 0; row += step) {
    fn(device.Rows(range.first + row, step), host.Rows(range.first + row, step));
  }
}

// Host memory of the calls of a group, in their order.
struct StagedCall {
  View input;   // of the whole of `send`
  View output;  // of the whole of `receive`
};

class StagedGroup final : public CallGroup {
 public:
  // Room for all calls.
  void Place() {
    int64_t bytes = 0;
    const auto add = [&bytes](ConstView view) {
      const int64_t at = bytes;
      bytes += (view.bytes() + kAlignment - 1) / kAlignment * kAlignment;
      return at;
    };
    offsets_.clear();
    for (const Call& call : calls()) {
      offsets_.push_back(add(call.send));
      offsets_.push_back(InPlace(call.verb) ? offsets_.back() : add(call.receive));
    }
    if (bytes > size_bytes_) {
      memory_.reset(new (std::align_val_t(kAlignment)) std::byte[bytes]);
      size_bytes_ = bytes;
    }
    staged_.clear();
    for (size_t i = 0; i < calls().size(); ++i) {
      staged_.push_back({At(offsets_[2 * i], calls()[i].send), At(offsets_[2 * i + 1], calls()[i].receive)});
    }
  }
  const StagedCall& staged(size_t i) const { return staged_[i]; }

  absl::Status started;
  Ticket ticket;

 private:
  static constexpr int64_t kAlignment = 64;
  struct Free {
    void operator()(std::byte* data) const { ::operator delete[](data, std::align_val_t(kAlignment)); }
  };

  View At(int64_t offset, ConstView shape) const {
    return {memory_.get() + offset, shape.dtype, shape.rows, shape.cols};
  }

  std::unique_ptr<std::byte[], Free> memory_;
  int64_t size_bytes_ = 0;
  std::vector<int64_t> offsets_;
  std::vector<StagedCall> staged_;
};

class StagedCommunicator final : public Communicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> inner, Backend& device)
      : Communicator(inner->size(), inner->index()), inner_(std::move(inner)), device_(device) {}
  absl::string_view body() const override { return "staged"; }

 private:
  std::unique_ptr<CallGroup> NewGroup() override { return std::make_unique<StagedGroup>(); }

  void DoStart(Stream& stream, CallGroup& calls, bool) override {
    StagedGroup& group = static_cast<StagedGroup&>(calls);
    group.Place();
    bool any = false;
    for (size_t i = 0; i < group.calls().size(); ++i) {
      const Call& call = group.calls()[i];
      ForEachPart(call.send, group.staged(i).input, Input(call, index()), [&](ConstView from, View to) {
        device_.CopyToHost(stream, from, to.data);
        any = true;
      });
    }
    if (any) device_.Synchronize(stream);
    inner_->GroupBegin();
    for (size_t i = 0; i < group.calls().size(); ++i) Repeat(stream, group.calls()[i], group.staged(i));
    const absl::StatusOr<Ticket> ticket = inner_->GroupStart(stream);
    group.started = ticket.status();
    if (ticket.ok()) group.ticket = *ticket;
  }

  absl::Status DoWait(Stream& stream, CallGroup& calls) override {
    StagedGroup& group = static_cast<StagedGroup&>(calls);
    RETURN_IF_ERROR(group.started);
    RETURN_IF_ERROR(inner_->Wait(stream, group.ticket));
    group.times.arrived = inner_->last_times().arrived;
    bool any = false;
    for (size_t i = 0; i < group.calls().size(); ++i) {
      const Call& call = group.calls()[i];
      ForEachPart(call.receive, group.staged(i).output, Output(call, index()), [&](View to, ConstView from) {
        device_.CopyFromHost(stream, from.data, to);
        any = true;
      });
    }
    if (any) device_.Synchronize(stream);
    group.times.done = RealClock().MonotonicNanos();
    return absl::OkStatus();
  }

  void DoAbort(const absl::Status& why) override { inner_->Abort(why); }

  // The call over host memory. What goes wrong is told by GroupStart or Wait.
  void Repeat(Stream& stream, const Call& call, const StagedCall& host) {
    const CallOptions options{call.name, call.timeout_s};
    absl::Status collected;
    switch (call.verb) {
      case CallVerb::kAllToAllV:
        collected =
            inner_->AllToAllV(stream, host.input, call.send_offsets, host.output, call.receive_offsets, options);
        break;
      case CallVerb::kAllGatherV:
        collected = inner_->AllGatherV(stream, host.input, host.output, call.receive_offsets, options);
        break;
      case CallVerb::kReduceScatter: collected = inner_->ReduceScatter(stream, host.input, host.output, options); break;
      case CallVerb::kAllReduce: collected = inner_->AllReduce(stream, host.output, options); break;
      case CallVerb::kBroadcast: collected = inner_->Broadcast(stream, host.output, call.peer, options); break;
      case CallVerb::kSend: collected = inner_->Send(stream, host.input, call.peer, options); break;
      case CallVerb::kReceive: collected = inner_->Receive(stream, host.output, call.peer, options); break;
    }
    CHECK(collected.ok());
  }

  const std::unique_ptr<Communicator> inner_;
  Backend& device_;
};

}  // namespace

std::unique_ptr<Communicator> MakeStagedCommunicator(std::unique_ptr<Communicator> inner, Backend& device) {
  return std::make_unique<StagedCommunicator>(std::move(inner), device);
}

}  // namespace shoestring
