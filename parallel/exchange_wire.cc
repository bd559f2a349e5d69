// Messages and their counters.
#include "parallel/exchange_wire.h"

#include <utility>

#include "base/check.h"

namespace shoestring {
namespace {

constexpr int64_t kRowAlignment = 4;  // of scales, which are f32

int64_t ValueBytes(const RowFormat& format, int64_t hidden) {
  return (BytesOf(format.dtype, hidden) + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

}  // namespace

const char* Name(ExchangeLeg leg) {
  switch (leg) {
    case ExchangeLeg::kCounts: return "dispatch counts";
    case ExchangeLeg::kChoices: return "dispatch choices";
    case ExchangeLeg::kDispatch: return "dispatch";
    case ExchangeLeg::kCombine: return "combine";
    case ExchangeLeg::kCombineBackward: return "combine backward";
    case ExchangeLeg::kDispatchBackwardWeight: return "gate weight gradients";
    case ExchangeLeg::kDispatchBackward: return "dispatch backward";
  }
  return "";
}

int64_t RowFormat::bytes(int64_t hidden) const {
  const int64_t scales = IsQuantised(dtype) ? ScaleColumns(tile, hidden) * SizeOf(DType::kF32) : 0;
  return ValueBytes(*this, hidden) + scales;
}

MutableOperand TravellingRows(const View& memory, const RowFormat& format, int64_t hidden, int64_t rows) {
  const int64_t row_bytes = format.bytes(hidden);
  CHECK_LE(rows * row_bytes, memory.bytes());
  const View values(memory.data, format.dtype, rows, hidden, row_bytes / SizeOf(format.dtype));
  if (!IsQuantised(format.dtype)) return values;
  const View scales(memory.data + ValueBytes(format, hidden), DType::kF32, rows, ScaleColumns(format.tile, hidden),
                    row_bytes / SizeOf(DType::kF32));
  return {values, scales, format.tile};
}

View TravellingBytes(const View& memory, int64_t row_bytes, int64_t first, int64_t count) {
  CHECK_LE((first + count) * row_bytes, memory.bytes());
  return {memory.data + first * row_bytes, DType::kU8, count, row_bytes};
}

View AllocateIndices(Arena& arena, absl::string_view name, int64_t rows, int64_t cols) {
  return arena.Allocate(Purpose::kExchange, name, DType::kI32, rows, cols);
}

void UploadIndices(Backend& backend, Stream& stream, const int32_t* host, View device, int64_t first, int64_t count) {
  if (count == 0) return;
  backend.CopyFromHost(stream, host, device.Reshape(1, device.elements()).Columns(first, count));
}

ExchangeWire::ExchangeWire(Communicator& group, std::vector<int> node_of, double timeout_s)
    : group_(group), node_of_(std::move(node_of)), timeout_s_(timeout_s) {
  CHECK_EQ(static_cast<int>(node_of_.size()), group.size());
  for (int64_t j = 0; j <= group.size(); ++j) offsets_.push_back(j);
}

void ExchangeWire::Note(const absl::Status& status) {
  if (status_.ok()) status_ = status;
}

void ExchangeWire::Begin(Stream& stream) {
  CHECK(stream_ == nullptr);
  stream_ = &stream;
  if (ok()) group_.GroupBegin();
}

void ExchangeWire::Send(ExchangeLeg leg, ConstView rows, int to) {
  if (!ok() || rows.rows == 0) return;
  Count(traffic_.legs[static_cast<int>(leg)].sent, rows, to);
  Note(group_.Send(*stream_, rows, to, {Name(leg), timeout_s_}));
}

void ExchangeWire::Receive(ExchangeLeg leg, View rows, int from) {
  if (!ok() || rows.rows == 0) return;
  Count(traffic_.legs[static_cast<int>(leg)].received, rows, from);
  Note(group_.Receive(*stream_, rows, from, {Name(leg), timeout_s_}));
}

Ticket ExchangeWire::Start() {
  Stream& stream = *std::exchange(stream_, nullptr);
  if (!ok()) return {};
  absl::StatusOr<Ticket> ticket = group_.GroupStart(stream);
  Note(ticket.status());
  return ticket.ok() ? *ticket : Ticket();
}

bool ExchangeWire::Await(Stream& stream, Ticket& ticket) {
  const Ticket awaited = std::exchange(ticket, Ticket());
  if (ok() && awaited) Note(group_.Wait(stream, awaited));
  return ok();
}

bool ExchangeWire::Transpose(Stream& stream, ExchangeLeg leg, ConstView send, View receive) {
  if (!ok()) return false;
  ExchangeTraffic::Leg& traffic = traffic_.legs[static_cast<int>(leg)];
  for (int j = 0; j < size(); ++j) {
    Count(traffic.sent, send.Rows(j, 1), j);
    Count(traffic.received, receive.Rows(j, 1), j);
  }
  Note(group_.AllToAllV(stream, send, offsets_, receive, offsets_, {Name(leg), timeout_s_}));
  return ok();
}

void ExchangeWire::Count(ExchangeTraffic::Links& links, const ConstView& rows, int peer) const {
  if (peer == index()) return;
  ExchangeTraffic::Link& link = node_of_[peer] == node_of_[index()] ? links.within_node : links.between_nodes;
  ++link.messages;
  link.rows += rows.rows;
  link.bytes += rows.bytes();
}

}  // namespace shoestring
