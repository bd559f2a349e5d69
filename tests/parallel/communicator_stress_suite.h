// Random programs on every body: each member groups, starts and awaits the same calls in its own way.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "parallel/communicator.h"
#include "tests/parallel/communicator_bodies.h"
#include "tests/parallel/communicator_program.h"

namespace shoestring {

// Runs one member's part of the program in its own random way.
class StressMember {
 public:
  StressMember(Communicator& comm, Stream& stream, uint64_t seed)
      : comm_(comm), stream_(stream), dice_(seed, 1 + comm.index()) {}

  void Run(const std::vector<StressCall>& program) {
    std::vector<const StressCall*> mine;
    for (const StressCall& call : program) {
      if (call.Concerns(comm_.index())) mine.push_back(&call);
    }
    for (size_t i = 0; i < mine.size() && !failed_;) {
      const size_t end = std::min(mine.size(), i + 1 + dice_.Below(5));
      if (dice_.Below(4) == 0) std::this_thread::sleep_for(std::chrono::microseconds(dice_.Below(100)));
      MakeGroup({mine.begin() + i, mine.begin() + end});
      i = end;
      if (in_flight_.size() > 4) AwaitOne();
    }
    while (!in_flight_.empty() && !failed_) AwaitOne();
  }

 private:
  using Memories = std::vector<std::unique_ptr<StressMemory>>;
  struct InFlight {
    Ticket ticket;
    Memories memories;
  };

  void MakeGroup(const std::vector<const StressCall*>& calls) {
    Memories memories;
    for (const StressCall* call : calls) {
      memories.push_back(std::make_unique<StressMemory>(*call, comm_.size(), comm_.index()));
    }
    const bool to_itself = std::any_of(calls.begin(), calls.end(), [this](const StressCall* call) {
      return call->verb == CallVerb::kSend && call->from == call->to && call->from == comm_.index();
    });
    const int64_t how = to_itself ? 1 + dice_.Below(2) : dice_.Below(3);
    if (how > 0) comm_.GroupBegin();
    for (const auto& memory : memories) Expect(memory->Make(comm_, stream_));
    if (how == 1) Expect(comm_.GroupEnd());
    if (how < 2) {
      CheckAll(memories);
      return;
    }
    const absl::StatusOr<Ticket> ticket = comm_.GroupStart(stream_);
    Expect(ticket.status());
    if (!failed_) in_flight_.push_back({*ticket, std::move(memories)});
  }

  void AwaitOne() {
    const int64_t i = dice_.Below(static_cast<int64_t>(in_flight_.size()));
    Expect(comm_.Wait(stream_, in_flight_[i].ticket));
    CheckAll(in_flight_[i].memories);
    in_flight_.erase(in_flight_.begin() + i);
  }

  void CheckAll(const Memories& memories) {
    for (const auto& memory : memories) {
      if (!failed_) {
        EXPECT_TRUE(memory->Check());
      }
    }
  }

  void Expect(const absl::Status& status) {
    EXPECT_EQ(status, absl::OkStatus()) << "member " << comm_.index();
    failed_ = failed_ || !status.ok();
  }

  Communicator& comm_;
  Stream& stream_;
  Dice dice_;
  std::vector<InFlight> in_flight_;
  bool failed_ = false;
};

class CommunicatorStressSuite : public testing::TestWithParam<CommunicatorBody> {};

TEST_P(CommunicatorStressSuite, RandomPrograms) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const std::vector<StressCall> program = RandomProgram(seed, GetParam().size, 120);
    GetParam().run([&](Communicator& comm, Backend& backend) {
      const std::unique_ptr<Stream> stream = backend.MakeStream();
      StressMember(comm, *stream, seed).Run(program);
    });
    if (HasFailure()) break;
  }
}

}  // namespace shoestring
