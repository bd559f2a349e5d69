// A group of one: what is sent arrives at once at the sender.
#include "parallel/single_communicator.h"

#include "base/check.h"
#include "base/clock.h"

namespace shoestring {
namespace {

class SingleCommunicator final : public Communicator {
 public:
  explicit SingleCommunicator(Backend& backend) : Communicator(1, 0), backend_(backend) {}
  absl::string_view body() const override { return "single"; }

 private:
  std::unique_ptr<CallGroup> NewGroup() override { return std::make_unique<CallGroup>(); }

  void DoStart(Stream& stream, CallGroup& group, bool) override {
    size_t receive = 0;  // the receive that the next send meets
    const absl::Span<const Call> calls = group.calls();
    for (const Call& call : calls) {
      switch (call.verb) {
        case CallVerb::kAllToAllV:
          Transfer(stream, Part(call.send, call.send_offsets), Part(call.receive, call.receive_offsets));
          break;
        case CallVerb::kAllGatherV: Transfer(stream, call.send, Part(call.receive, call.receive_offsets)); break;
        case CallVerb::kReduceScatter: Transfer(stream, call.send, call.receive); break;
        case CallVerb::kSend:
          while (calls[receive].verb != CallVerb::kReceive) ++receive;
          Transfer(stream, call.send, calls[receive++].receive);
          break;
        case CallVerb::kAllReduce:
        case CallVerb::kBroadcast:
        case CallVerb::kReceive: break;
      }
    }
    group.times.done = RealClock().MonotonicNanos();
  }
  absl::Status DoWait(Stream&, CallGroup&) override { return absl::OkStatus(); }
  void DoAbort(const absl::Status&) override {}

  template <typename ViewType>
  static ViewType Part(ViewType view, const std::vector<int64_t>& offsets) {
    return view.Rows(offsets[0], offsets[1] - offsets[0]);
  }
  void Transfer(Stream& stream, ConstView from, View to) {
    if (from.data == to.data || from.empty()) return;
    backend_.Copy(stream, from, to);
  }

  Backend& backend_;
};

}  // namespace

std::unique_ptr<Communicator> MakeSingleCommunicator(Backend& backend) {
  return std::make_unique<SingleCommunicator>(backend);
}

}  // namespace shoestring
