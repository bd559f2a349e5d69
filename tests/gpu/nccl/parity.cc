// The verbs of the NCCL communicator on real devices, against plain loops.
#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/gpu/nccl/items.h"

namespace shoestring::gpu {
namespace {

constexpr float kPoison = -12345.0f;

// Element i of what member `member` brings; whole numbers below 2^24, so that sums are exact in any order.
float Value(int member, int64_t i) { return static_cast<float>((member * 7919 + i * 31) % 65521); }

std::vector<float> Values(int member, int64_t count) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = Value(member, i);
  return values;
}

absl::Status Compare(const std::vector<float>& got, const std::vector<float>& want, absl::string_view what) {
  for (size_t i = 0; i < want.size(); ++i) {
    if (got[i] != want[i]) {
      return absl::InternalError(absl::StrCat(what, ": element ", i, " is ", got[i], ", must be ", want[i]));
    }
  }
  return absl::OkStatus();
}

// Rows that member `from` sends member `to`: empty, equal and unequal parts all occur.
int64_t Rows(int from, int to, int64_t scale) { return (from + 2 * to) % 3 * scale + (from == to ? 1 : 0); }

struct Exchange {
  std::vector<int64_t> send = {0}, receive = {0};
  Exchange(int index, int size, int64_t scale) {
    for (int j = 0; j < size; ++j) {
      send.push_back(send.back() + Rows(index, j, scale));
      receive.push_back(receive.back() + Rows(j, index, scale));
    }
  }
};

// `stride` > cols: with gaps, which must stay as they are.
absl::Status CheckAllToAllV(RankContext& context, Communicator& comm, int64_t scale, int64_t cols, int64_t stride) {
  const int size = comm.size(), index = comm.index();
  const Exchange mine(index, size, scale);
  DeviceMatrix send(context, mine.send.back(), cols, stride), receive(context, mine.receive.back(), cols, stride);
  send.Write(Values(index, send.elements()));
  std::vector<float> want(receive.elements(), kPoison);
  receive.Write(want);
  RETURN_IF_ERROR(comm.AllToAllV(context.stream(), send.view(), mine.send, receive.view(), mine.receive,
                                 {"all to all", context.options().timeout_s}));
  for (int from = 0; from < size; ++from) {
    const int64_t first = Exchange(from, size, scale).send[index];
    for (int64_t row = 0; row < Rows(from, index, scale); ++row) {
      for (int64_t col = 0; col < cols; ++col) {
        want[(mine.receive[from] + row) * stride + col] = Value(from, (first + row) * stride + col);
      }
    }
  }
  return Compare(receive.Read(), want, absl::StrCat("all_to_all_v, scale ", scale, ", ", cols, " of ", stride));
}

absl::Status CheckAllGatherV(RankContext& context, Communicator& comm, bool equal) {
  constexpr int64_t kCols = 37;
  std::vector<int64_t> offsets = {0};
  for (int j = 0; j < comm.size(); ++j) offsets.push_back(offsets.back() + (equal ? 5 : j % 3));
  const auto rows = [&](int j) { return offsets[j + 1] - offsets[j]; };
  DeviceMatrix send(context, rows(comm.index()), kCols), receive(context, offsets.back(), kCols);
  send.Write(Values(comm.index(), send.elements()));
  receive.Write(std::vector<float>(receive.elements(), kPoison));
  RETURN_IF_ERROR(comm.AllGatherV(context.stream(), send.view(), receive.view(), offsets,
                                  {"all gather", context.options().timeout_s}));
  std::vector<float> want;
  for (int j = 0; j < comm.size(); ++j) {
    const std::vector<float> part = Values(j, rows(j) * kCols);
    want.insert(want.end(), part.begin(), part.end());
  }
  return Compare(receive.Read(), want, equal ? "all_gather_v, equal" : "all_gather_v, unequal");
}

absl::Status CheckSums(RankContext& context, Communicator& comm, int64_t rows) {
  constexpr int64_t kCols = 13;
  const int size = comm.size();
  DeviceMatrix all(context, rows * size, kCols), part(context, rows, kCols);
  all.Write(Values(comm.index(), all.elements()));
  RETURN_IF_ERROR(
      comm.ReduceScatter(context.stream(), all.view(), part.view(), {"scatter", context.options().timeout_s}));
  RETURN_IF_ERROR(comm.AllReduce(context.stream(), all.view(), {"reduce", context.options().timeout_s}));
  std::vector<float> want(all.elements(), 0);
  for (int j = 0; j < size; ++j) {
    for (int64_t i = 0; i < all.elements(); ++i) want[i] += Value(j, i);
  }
  RETURN_IF_ERROR(Compare(all.Read(), want, "all_reduce"));
  const auto first = want.begin() + comm.index() * part.elements();
  return Compare(part.Read(), std::vector<float>(first, first + part.elements()), "reduce_scatter");
}

absl::Status CheckBroadcast(RankContext& context, Communicator& comm) {
  DeviceMatrix x(context, 3, 1001);
  const int root = comm.size() - 1;
  x.Write(Values(comm.index(), x.elements()));
  RETURN_IF_ERROR(comm.Broadcast(context.stream(), x.view(), root, {"broadcast", context.options().timeout_s}));
  return Compare(x.Read(), Values(root, x.elements()), "broadcast");
}

// A ring beside the stream: two messages to the next member in a group in flight, an all-reduce meanwhile.
absl::Status CheckTickets(RankContext& context, Communicator& comm) {
  const int next = (comm.index() + 1) % comm.size();
  const int last = (comm.index() + comm.size() - 1) % comm.size();
  const CallOptions options{"ring", context.options().timeout_s};
  Stream& stream = context.stream();
  DeviceMatrix a(context, 64, 129), b(context, 1, 3), got_a(context, 64, 129), got_b(context, 1, 3);
  DeviceMatrix sum(context, 1, 1);
  a.Write(Values(comm.index(), a.elements()));
  b.Write(Values(comm.index() + 100, b.elements()));
  sum.Write({1});
  comm.GroupBegin();
  RETURN_IF_ERROR(comm.Send(stream, a.view(), next, options));
  RETURN_IF_ERROR(comm.Send(stream, b.view(), next, options));
  RETURN_IF_ERROR(comm.Receive(stream, got_a.view(), last, options));
  RETURN_IF_ERROR(comm.Receive(stream, got_b.view(), last, options));
  ASSIGN_OR_RETURN(const Ticket ticket, comm.GroupStart(stream));
  RETURN_IF_ERROR(comm.AllReduce(stream, sum.view(), options));
  RETURN_IF_ERROR(comm.Wait(stream, ticket));
  RETURN_IF_ERROR(Compare(got_a.Read(), Values(last, a.elements()), "first message of the ring"));
  RETURN_IF_ERROR(Compare(got_b.Read(), Values(last + 100, b.elements()), "second message of the ring"));
  return Compare(sum.Read(), {static_cast<float>(comm.size())}, "all_reduce beside the ring");
}

}  // namespace

absl::Status CheckParity(RankContext& context) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Communicator> comm, context.Join(context.options().ranks, 0));
  for (const int64_t scale : {0, 1, 1000}) {
    RETURN_IF_ERROR(CheckAllToAllV(context, *comm, scale, 3, 3));
    RETURN_IF_ERROR(CheckAllToAllV(context, *comm, scale, 100, 100));
    RETURN_IF_ERROR(CheckAllToAllV(context, *comm, scale, 5, 8));
  }
  for (const bool equal : {true, false}) RETURN_IF_ERROR(CheckAllGatherV(context, *comm, equal));
  for (const int64_t rows : {1, 2500}) RETURN_IF_ERROR(CheckSums(context, *comm, rows));
  RETURN_IF_ERROR(CheckBroadcast(context, *comm));
  for (int i = 0; i < 100; ++i) RETURN_IF_ERROR(CheckTickets(context, *comm));  // more than may be under way at once
  return absl::OkStatus();
}

}  // namespace shoestring::gpu
