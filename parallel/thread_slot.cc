// What the collective verbs do with the inputs of all members.
#include "parallel/thread_slot.h"

#include <cstring>
#include <type_traits>

#include "base/check.h"

namespace shoestring {
namespace {

int64_t RowBytes(ConstView x) { return BytesOf(x.dtype, x.cols); }

// sum += x. Whole numbers wrap around.
template <typename T>
void AddTo(T* sum, const T* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_integral_v<T>) {
      sum[i] = static_cast<T>(static_cast<uint64_t>(sum[i]) + static_cast<uint64_t>(x[i]));
    } else {
      sum[i] += x[i];
    }
  }
}

void AddTo(DType dtype, std::byte* sum, const std::byte* x, int64_t n) {
  switch (dtype) {
    case DType::kF32: return AddTo(reinterpret_cast<float*>(sum), reinterpret_cast<const float*>(x), n);
    case DType::kF64: return AddTo(reinterpret_cast<double*>(sum), reinterpret_cast<const double*>(x), n);
    case DType::kI64: return AddTo(reinterpret_cast<int64_t*>(sum), reinterpret_cast<const int64_t*>(x), n);
    default: CHECK(false);
  }
}

int64_t PartRows(const std::vector<int64_t>& offsets, int j) { return offsets[j + 1] - offsets[j]; }

// to = the sum over the deposits of their rows [first_row, first_row + to.rows), in order of members.
void SumRowsOf(const ThreadSlot& slot, int64_t first_row, View to) {
  const int64_t row_bytes = RowBytes(to);
  for (int64_t row = 0; row < to.rows; ++row) {
    const int64_t at = (first_row + row) * row_bytes;
    std::byte* const sum = to.row_bytes(row);
    std::memcpy(sum, slot.deposits[0].payload.data() + at, row_bytes);
    for (size_t j = 1; j < slot.deposits.size(); ++j) {
      AddTo(to.dtype, sum, slot.deposits[j].payload.data() + at, to.cols);
    }
  }
}

}  // namespace

void ThreadSlot::Reset(int64_t new_sequence, int members) {
  sequence = new_sequence;
  entered = posted = finished = 0;
  full = false;
  deposits.resize(members);
  for (Deposit& deposit : deposits) deposit.posted = false;
}

void CopyRows(ConstView from, std::byte* to) {
  if (from.empty()) return;
  if (from.contiguous()) {
    std::memcpy(to, from.data, from.rows * RowBytes(from));
    return;
  }
  for (int64_t row = 0; row < from.rows; ++row)
    std::memcpy(to + row * RowBytes(from), from.row_bytes(row), RowBytes(from));
}

void CopyRows(const std::byte* from, View to) {
  if (to.empty()) return;
  if (to.contiguous()) {
    std::memcpy(to.data, from, to.rows * RowBytes(to));
    return;
  }
  for (int64_t row = 0; row < to.rows; ++row) std::memcpy(to.row_bytes(row), from + row * RowBytes(to), RowBytes(to));
}

void FillDeposit(const Call& call, int index, PayloadPool& pool, ThreadSlot::Deposit& deposit) {
  ConstView input = call.send;
  if (call.verb == CallVerb::kAllToAllV) {
    input = input.Rows(call.send_offsets.front(), call.send_offsets.back() - call.send_offsets.front());
    deposit.send_offsets.assign(call.send_offsets.begin(), call.send_offsets.end());
  }
  if (call.verb == CallVerb::kBroadcast && call.peer != index) input = input.Rows(0, 0);
  deposit.receive_offsets.assign(call.receive_offsets.begin(), call.receive_offsets.end());
  deposit.rows = input.rows;
  deposit.payload = pool.Acquire(input.rows * RowBytes(input));
  CopyRows(input, deposit.payload.data());
}

RowsMismatch FindRowsMismatch(const ThreadSlot& slot) {
  const bool to_each = slot.signature.verb == CallVerb::kAllToAllV;
  if (!to_each && slot.signature.verb != CallVerb::kAllGatherV) return {};
  const int members = static_cast<int>(slot.deposits.size());
  for (int from = 0; from < members; ++from) {
    for (int to = 0; to < members; ++to) {
      const ThreadSlot::Deposit& sender = slot.deposits[from];
      const int64_t sent = to_each ? PartRows(sender.send_offsets, to) : sender.rows;
      const int64_t expected = PartRows(slot.deposits[to].receive_offsets, from);
      if (sent != expected) return {from, to, sent, expected};
    }
  }
  return {};
}

void SumDeposits(ThreadSlot& slot) {
  const CallSignature& of = slot.signature;
  if (of.rows * of.cols == 0) return;
  for (size_t j = 1; j < slot.deposits.size(); ++j) {
    AddTo(of.dtype, slot.deposits[0].payload.data(), slot.deposits[j].payload.data(), of.rows * of.cols);
  }
}

void TakeResult(const ThreadSlot& slot, const Call& call, int index) {
  const View& to = call.receive;
  switch (call.verb) {
    case CallVerb::kAllToAllV:
    case CallVerb::kAllGatherV:
      for (size_t j = 0; j < slot.deposits.size(); ++j) {
        const ThreadSlot::Deposit& from = slot.deposits[j];
        const View part = to.Rows(call.receive_offsets[j], PartRows(call.receive_offsets, j));
        if (part.empty()) continue;
        const int64_t first_row =
            call.verb == CallVerb::kAllToAllV ? from.send_offsets[index] - from.send_offsets[0] : int64_t{0};
        CopyRows(from.payload.data() + first_row * RowBytes(to), part);
      }
      break;
    case CallVerb::kReduceScatter:
      if (!to.empty()) SumRowsOf(slot, index * to.rows, to);
      break;
    case CallVerb::kAllReduce: CopyRows(slot.deposits[0].payload.data(), to); break;
    case CallVerb::kBroadcast:
      if (call.peer != index) CopyRows(slot.deposits[call.peer].payload.data(), to);
      break;
    case CallVerb::kSend:
    case CallVerb::kReceive: CHECK(false);
  }
}

}  // namespace shoestring
