// Random programs of calls for tests of communicators: what each member makes, and what must be there in the end.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/communicator.h"
#include "tests/parallel/communicator_bodies.h"

namespace shoestring {

// One call of a random program, from the view of nobody.
struct StressCall {
  CallVerb verb = CallVerb::kSend;  // kSend: a message from `from` to `to`; kReceive does not occur
  std::string name;
  DType dtype = DType::kF32;
  int64_t cols = 0;
  int64_t rows = 0;
  int from = 0;  // of kBroadcast the root
  int to = 0;
  uint64_t tag = 0;                         // of its data; plus the member
  std::vector<std::vector<int64_t>> parts;  // of kAllToAllV: rows from each to each

  uint64_t TagOf(int member) const { return tag * 64 + member; }
  // Rows in front of the part of `to` in what `from` sends.
  int64_t RowsBefore(int from_member, int to_member) const {
    int64_t rows_before = 0;
    for (int j = 0; j < to_member; ++j) rows_before += parts[from_member][j];
    return rows_before;
  }
  bool Concerns(int member) const { return verb != CallVerb::kSend || from == member || to == member; }
};

inline std::vector<StressCall> RandomProgram(uint64_t seed, int members, int length) {
  Dice dice(seed, 0);
  std::vector<StressCall> program(length);
  for (int i = 0; i < length; ++i) {
    StressCall& call = program[i];
    constexpr CallVerb kVerbsDrawn[] = {CallVerb::kAllToAllV, CallVerb::kAllGatherV, CallVerb::kReduceScatter,
                                        CallVerb::kAllReduce, CallVerb::kBroadcast,  CallVerb::kSend,
                                        CallVerb::kSend,      CallVerb::kSend};
    call.verb = kVerbsDrawn[dice.Below(8)];
    call.name = "call " + std::to_string(i);
    const bool sums = call.verb == CallVerb::kReduceScatter || call.verb == CallVerb::kAllReduce;
    call.dtype = sums ? kSummable[dice.Below(3)] : kAllDTypes[dice.Below(9)];
    call.cols = 2 * dice.Below(dice.Below(8) == 0 ? 600 : 20);
    call.rows = dice.Below(7);
    call.from = static_cast<int>(dice.Below(members));
    call.to = static_cast<int>(dice.Below(members));
    call.tag = seed * 10000 + i;
    call.parts.assign(members, std::vector<int64_t>(members));
    for (std::vector<int64_t>& row : call.parts) {
      for (int64_t& part : row) part = std::max<int64_t>(0, dice.Below(6) - 2);
    }
  }
  return program;
}

// A call that one member has made, its memory, and what must be there in the end.
class StressMemory {
 public:
  StressMemory(const StressCall& call, int members, int me)
      : call_(call), members_(members), me_(me), in_(Input()), out_(Output()) {
    const bool sums = call.verb == CallVerb::kReduceScatter || call.verb == CallVerb::kAllReduce;
    TestMatrix& filled = call.verb == CallVerb::kAllReduce || call.verb == CallVerb::kBroadcast ? out_ : in_;
    sums ? filled.FillNumbers(call.TagOf(me)) : filled.Fill(call.TagOf(me));
  }

  absl::Status Make(Communicator& comm, Stream& stream) {
    const CallOptions options = {call_.name, 60};
    switch (call_.verb) {
      case CallVerb::kAllToAllV: {
        std::vector<int64_t> send_offsets = {0}, receive_offsets = {0};
        for (int j = 0; j < members_; ++j) {
          send_offsets.push_back(send_offsets.back() + call_.parts[me_][j]);
          receive_offsets.push_back(receive_offsets.back() + call_.parts[j][me_]);
        }
        return comm.AllToAllV(stream, in_.view(), send_offsets, out_.view(), receive_offsets, options);
      }
      case CallVerb::kAllGatherV: {
        std::vector<int64_t> offsets = {0};
        for (int j = 0; j < members_; ++j) offsets.push_back(offsets.back() + call_.parts[0][j]);
        return comm.AllGatherV(stream, in_.view(), out_.view(), offsets, options);
      }
      case CallVerb::kReduceScatter: return comm.ReduceScatter(stream, in_.view(), out_.view(), options);
      case CallVerb::kAllReduce: return comm.AllReduce(stream, out_.view(), options);
      case CallVerb::kBroadcast: return comm.Broadcast(stream, out_.view(), call_.from, options);
      case CallVerb::kSend:
      case CallVerb::kReceive: break;
    }
    absl::Status status;
    if (call_.from == me_) status.Update(comm.Send(stream, in_.view(), call_.to, options));
    if (call_.to == me_) status.Update(comm.Receive(stream, out_.view(), call_.from, options));
    return status;
  }

  testing::AssertionResult Check() const {
    std::vector<uint64_t> tags;
    for (int j = 0; j < members_; ++j) tags.push_back(call_.TagOf(j));
    testing::AssertionResult result = out_.PaddingUntouched();
    int64_t first = 0;
    switch (call_.verb) {
      case CallVerb::kAllToAllV:
      case CallVerb::kAllGatherV:
        for (int j = 0; j < members_ && result; ++j) {
          const bool to_each = call_.verb == CallVerb::kAllToAllV;
          const int64_t rows = to_each ? call_.parts[j][me_] : call_.parts[0][j];
          result = out_.HasRows(first, rows, tags[j], to_each ? call_.RowsBefore(j, me_) : 0);
          first += rows;
        }
        break;
      case CallVerb::kReduceScatter: result = out_.HasSums(tags, me_ * call_.rows); break;
      case CallVerb::kAllReduce: result = out_.HasSums(tags, 0); break;
      case CallVerb::kBroadcast: result = out_.HasRows(0, call_.rows, tags[call_.from], 0); break;
      case CallVerb::kSend:
      case CallVerb::kReceive:
        if (call_.to == me_) result = out_.HasRows(0, call_.rows, tags[call_.from], 0);
    }
    return result ? result : result << " in " << Name(call_.verb) << " '" << call_.name << "' at member " << me_;
  }

 private:
  TestMatrix Input() const {
    int64_t rows = call_.rows;
    if (call_.verb == CallVerb::kAllToAllV) rows = call_.RowsBefore(me_, members_);
    if (call_.verb == CallVerb::kAllGatherV) rows = call_.parts[0][me_];
    if (call_.verb == CallVerb::kReduceScatter) rows = call_.rows * members_;
    return {call_.dtype, rows, call_.cols, 2};
  }
  TestMatrix Output() const {
    int64_t rows = call_.rows;
    if (call_.verb == CallVerb::kAllToAllV) {
      rows = 0;
      for (int j = 0; j < members_; ++j) rows += call_.parts[j][me_];
    }
    if (call_.verb == CallVerb::kAllGatherV) rows = call_.RowsBefore(0, members_);
    return {call_.dtype, rows, call_.cols, 4};
  }

  const StressCall& call_;
  const int members_, me_;
  TestMatrix in_, out_;
};

}  // namespace shoestring
