// Offsets and shapes to NCCL calls.
#include "parallel/nccl/plan.h"

#include "base/check.h"

namespace shoestring {
namespace {

constexpr int64_t kAlignment = 256;  // of what cudaMalloc gives; NCCL is fastest from 16 on

int64_t RowBytes(ConstView x) { return BytesOf(x.dtype, x.cols); }
bool HasGaps(ConstView x) { return !x.empty() && !x.contiguous(); }
int64_t StagedBytes(ConstView x) { return HasGaps(x) ? (x.bytes() + kAlignment - 1) / kAlignment * kAlignment : 0; }

NcclType SumType(DType dtype) {
  switch (dtype) {
    case DType::kF32: return NcclType::kF32;
    case DType::kF64: return NcclType::kF64;
    case DType::kI64: return NcclType::kI64;
    default: CHECK(dtype == DType::kF32);  // NCCL would round bf16 sums at every hop
  }
  return NcclType::kU8;
}

// Hands out the staging memory of one group, and notes the copies.
class Packer {
 public:
  Packer(std::byte* staging, NcclPlan& plan) : staging_(staging), plan_(plan) {}

  // Where the bytes of a view lie without gaps: in place, or in staging, packed before the calls.
  const std::byte* Input(ConstView x) {
    if (!HasGaps(x)) return x.data;
    std::byte* const packed = Take(x);
    plan_.before.push_back(Copy(x.data, Pitch(x), packed, RowBytes(x), x));
    return packed;
  }
  // Where they are to lie: from staging they are unpacked after the calls.
  std::byte* Output(View x) {
    if (!HasGaps(x)) return x.data;
    std::byte* const packed = Take(x);
    plan_.after.push_back(Copy(packed, RowBytes(x), x.data, Pitch(x), x));
    return packed;
  }
  std::byte* InOut(View x) {
    std::byte* const packed = Output(x);
    if (packed != x.data) plan_.before.push_back(Copy(x.data, Pitch(x), packed, RowBytes(x), x));
    return packed;
  }

 private:
  static int64_t Pitch(ConstView x) { return BytesOf(x.dtype, x.stride); }
  static NcclCopy Copy(const std::byte* from, int64_t from_pitch, std::byte* to, int64_t to_pitch, ConstView x) {
    return {.from = from,
            .from_pitch = static_cast<size_t>(from_pitch),
            .to = to,
            .to_pitch = static_cast<size_t>(to_pitch),
            .row_bytes = static_cast<size_t>(RowBytes(x)),
            .rows = static_cast<size_t>(x.rows)};
  }
  std::byte* Take(ConstView x) {
    CHECK(staging_ != nullptr);
    std::byte* const place = staging_;
    staging_ += StagedBytes(x);
    return place;
  }

  std::byte* staging_;
  NcclPlan& plan_;
};

// The rows that the offsets cover.
template <typename V>
V Part(const V& x, const std::vector<int64_t>& offsets) {
  return x.Rows(offsets.front(), offsets.back() - offsets.front());
}

void AddPart(NcclOp::Kind kind, const std::byte* from, std::byte* to, int64_t bytes, int peer, NcclPlan& plan) {
  if (bytes == 0) return;
  plan.ops.push_back({.kind = kind, .from = from, .to = to, .count = static_cast<size_t>(bytes), .peer = peer});
}

void AddAllToAllV(int index, int size, const Call& call, Packer& packer, NcclPlan& plan) {
  const std::vector<int64_t>& out = call.send_offsets;
  const std::vector<int64_t>& in = call.receive_offsets;
  const int64_t row = RowBytes(call.send);
  // Rows outside the offsets are nobody's and stay as they are; so the bases lie `front` rows before what is handed
  // out.
  const std::byte* const from = packer.Input(Part(call.send, out)) - out.front() * row;
  std::byte* const to = packer.Output(Part(call.receive, in)) - in.front() * row;
  for (int step = 1; step <= size; ++step) {
    const int next = (index + step) % size;
    AddPart(NcclOp::Kind::kSend, from + out[next] * row, nullptr, (out[next + 1] - out[next]) * row, next, plan);
    const int last = (index - step + size) % size;
    AddPart(NcclOp::Kind::kReceive, nullptr, to + in[last] * row, (in[last + 1] - in[last]) * row, last, plan);
  }
}

void AddAllGatherV(int index, int size, const Call& call, Packer& packer, NcclPlan& plan) {
  const std::vector<int64_t>& offsets = call.receive_offsets;
  const int64_t row = RowBytes(call.receive);
  const std::byte* const from = packer.Input(call.send);
  std::byte* const to = packer.Output(Part(call.receive, offsets)) - offsets.front() * row;
  bool equal = true;
  for (int j = 0; j < size; ++j) equal &= offsets[j + 1] - offsets[j] == call.send.rows;
  if (equal) {
    AddPart(NcclOp::Kind::kAllGather, from, to + offsets[0] * row, call.send.rows * row, 0, plan);
    return;
  }
  for (int j = 0; j < size; ++j) {
    std::byte* const part = to + offsets[j] * row;
    AddPart(NcclOp::Kind::kBroadcast, j == index ? from : part, part, (offsets[j + 1] - offsets[j]) * row, j, plan);
  }
}

void AddSum(NcclOp::Kind kind, const std::byte* from, std::byte* to, ConstView x, NcclPlan& plan) {
  if (x.empty()) return;
  plan.ops.push_back(
      {.kind = kind, .from = from, .to = to, .count = static_cast<size_t>(x.elements()), .type = SumType(x.dtype)});
}

void AddCall(int index, int size, const Call& call, Packer& packer, NcclPlan& plan) {
  switch (call.verb) {
    case CallVerb::kAllToAllV: return AddAllToAllV(index, size, call, packer, plan);
    case CallVerb::kAllGatherV: return AddAllGatherV(index, size, call, packer, plan);
    case CallVerb::kReduceScatter: {
      const std::byte* const from = packer.Input(call.send);
      return AddSum(NcclOp::Kind::kReduceScatter, from, packer.Output(call.receive), call.receive, plan);
    }
    case CallVerb::kAllReduce: {
      std::byte* const x = packer.InOut(call.receive);
      return AddSum(NcclOp::Kind::kAllReduce, x, x, call.receive, plan);
    }
    case CallVerb::kBroadcast: {
      std::byte* const x = packer.InOut(call.receive);
      return AddPart(NcclOp::Kind::kBroadcast, x, x, call.receive.bytes(), call.peer, plan);
    }
    case CallVerb::kSend:
      return AddPart(NcclOp::Kind::kSend, packer.Input(call.send), nullptr, call.send.bytes(), call.peer, plan);
    case CallVerb::kReceive:
      return AddPart(NcclOp::Kind::kReceive, nullptr, packer.Output(call.receive), call.receive.bytes(), call.peer,
                     plan);
  }
}

}  // namespace

void NcclPlan::Clear() {
  before.clear();
  ops.clear();
  after.clear();
}

int64_t NcclStagingBytes(absl::Span<const Call> calls) {
  int64_t bytes = 0;
  for (const Call& call : calls) {
    const bool one_view = call.verb == CallVerb::kAllReduce || call.verb == CallVerb::kBroadcast;  // send is receive
    bytes += (one_view ? 0 : StagedBytes(call.send)) + StagedBytes(call.receive);
  }
  return bytes;
}

void MakeNcclPlan(int index, int size, absl::Span<const Call> calls, std::byte* staging, NcclPlan& plan) {
  plan.Clear();
  Packer packer(staging, plan);
  for (const Call& call : calls) AddCall(index, size, call, packer, plan);
}

}  // namespace shoestring
