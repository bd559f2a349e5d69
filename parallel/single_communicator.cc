// A group of one: what is sent arrives at once at the sender.
#include "parallel/single_communicator.h"

#include <vector>

#include "base/check.h"

namespace shoestring {
namespace {

class SingleCommunicator final : public Communicator {
 public:
  explicit SingleCommunicator(Backend& backend) : backend_(backend) {}

  absl::string_view body() const override { return "single"; }
  int size() const override { return 1; }
  int index() const override { return 0; }

  absl::Status AllToAllV(Stream& stream, ConstView send, absl::Span<const int64_t> send_offsets, View receive,
                         absl::Span<const int64_t> receive_offsets, const CallOptions&) override {
    CHECK_EQ(send_offsets.size(), 2u);
    CHECK_EQ(receive_offsets.size(), 2u);
    CHECK_EQ(send_offsets[1] - send_offsets[0], receive_offsets[1] - receive_offsets[0]);
    Transfer(stream, send.Rows(send_offsets[0], send_offsets[1] - send_offsets[0]),
             receive.Rows(receive_offsets[0], receive_offsets[1] - receive_offsets[0]));
    return absl::OkStatus();
  }
  absl::Status AllGatherV(Stream& stream, ConstView send, View receive, absl::Span<const int64_t> offsets,
                          const CallOptions&) override {
    CHECK_EQ(offsets.size(), 2u);
    Transfer(stream, send, receive.Rows(offsets[0], offsets[1] - offsets[0]));
    return absl::OkStatus();
  }
  absl::Status ReduceScatter(Stream& stream, ConstView send, View receive, const CallOptions&) override {
    Transfer(stream, send, receive);
    return absl::OkStatus();
  }
  absl::Status AllReduce(Stream&, View, const CallOptions&) override { return absl::OkStatus(); }
  absl::Status Broadcast(Stream&, View, int root, const CallOptions&) override {
    CHECK_EQ(root, 0);
    return absl::OkStatus();
  }
  absl::Status Send(Stream& stream, ConstView x, int to, const CallOptions&) override {
    CHECK_EQ(to, 0);
    CHECK(in_group_);
    Pair(stream, x, sent_, received_, [this](Stream& s, ConstView from, View y) { Transfer(s, from, y); });
    return absl::OkStatus();
  }
  absl::Status Receive(Stream& stream, View x, int from, const CallOptions&) override {
    CHECK_EQ(from, 0);
    CHECK(in_group_);
    Pair(stream, x, received_, sent_, [this](Stream& s, View y, ConstView other) { Transfer(s, other, y); });
    return absl::OkStatus();
  }
  void GroupBegin() override {
    CHECK(!in_group_);
    in_group_ = true;
  }
  absl::Status GroupEnd() override {
    CHECK(in_group_);
    CHECK(sent_.empty() && received_.empty());  // a send or receive without its other half
    in_group_ = false;
    return absl::OkStatus();
  }

 private:
  // Serves the oldest waiting `others` with `x`, or lets x wait.
  template <typename X, typename Others, typename CopyFn>
  void Pair(Stream& stream, X x, std::vector<X>& waiting, std::vector<Others>& others, CopyFn copy) {
    if (others.empty()) {
      waiting.push_back(x);
      return;
    }
    copy(stream, x, others.front());
    others.erase(others.begin());
  }
  void Transfer(Stream& stream, ConstView from, View to) {
    CHECK(from.dtype == to.dtype);
    CHECK_EQ(from.rows, to.rows);
    CHECK_EQ(from.cols, to.cols);
    if (from.data == to.data || from.empty()) return;
    backend_.Copy(stream, from, to);
  }

  Backend& backend_;
  bool in_group_ = false;
  std::vector<ConstView> sent_;
  std::vector<View> received_;
};

}  // namespace

std::unique_ptr<Communicator> MakeSingleCommunicator(Backend& backend) {
  return std::make_unique<SingleCommunicator>(backend);
}

}  // namespace shoestring
