// The messages of an expert exchange: named groups of sends and receives, counted by where they go, with one sticky
// failure.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "parallel/communicator.h"
#include "parallel/expert_exchange.h"

namespace shoestring {

// A row as it travels: its values, then the scales of its tiles, padded to four bytes.
struct RowFormat {
  DType dtype = DType::kF32;
  Tile tile;  // {1, n} for quantised values

  int64_t bytes(int64_t hidden) const;
};

// `rows` such rows of `hidden` values in `memory` (u8, contiguous).
MutableOperand TravellingRows(const View& memory, const RowFormat& format, int64_t hidden, int64_t rows);
// The same as bytes: what a message is.
View TravellingBytes(const View& memory, int64_t row_bytes, int64_t first, int64_t count);

// A matrix of whole numbers that the host computes and the device reads.
View AllocateIndices(Arena& arena, absl::string_view name, int64_t rows, int64_t cols);
// host[0, count) to the elements from `first` on of a contiguous i32 view.
void UploadIndices(Backend& backend, Stream& stream, const int32_t* host, View device, int64_t first, int64_t count);

// Not thread-safe; one of an exchange.
class ExchangeWire {
 public:
  // `node_of`: the machine of each member. `group` must outlive this object.
  ExchangeWire(Communicator& group, std::vector<int> node_of, double timeout_s);

  int size() const { return group_.size(); }
  int index() const { return group_.index(); }
  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  const ExchangeTraffic& traffic() const { return traffic_; }

  // One group: Begin, then sends and receives, then Start. Views without rows are no message. After a failure nothing
  // is sent.
  void Begin(Stream& stream);
  void Send(ExchangeLeg leg, ConstView rows, int to);
  void Receive(ExchangeLeg leg, View rows, int from);
  Ticket Start();
  // False after a failure, this one or an earlier one. An empty ticket is done.
  bool Await(Stream& stream, Ticket& ticket);

  // Row j of `send` to member j, row i of `receive` from member i; waits for all.
  bool Transpose(Stream& stream, ExchangeLeg leg, ConstView send, View receive);

 private:
  void Note(const absl::Status& status);
  void Count(ExchangeTraffic::Links& links, const ConstView& rows, int peer) const;

  Communicator& group_;
  const std::vector<int> node_of_;
  const double timeout_s_;
  absl::Status status_;
  ExchangeTraffic traffic_;
  Stream* stream_ = nullptr;
  std::vector<int64_t> offsets_;
};

}  // namespace shoestring
