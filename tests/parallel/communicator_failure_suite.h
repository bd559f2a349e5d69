// What every body of more than one member must do when a member is late, leaves, gives up or makes another call.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "parallel/communicator.h"
#include "tests/parallel/communicator_bodies.h"

namespace shoestring {

// One call of a member on rows of x.
using FailingCall = std::function<absl::Status(Communicator&, Stream&, View x, const CallOptions&)>;

class CommunicatorFailureSuite : public testing::TestWithParam<CommunicatorBody> {
 protected:
  static constexpr CallOptions kSoon = {"hopeless", 0.1};
  static constexpr CallOptions kPatient = {"hopeless", 60};
  static constexpr CallOptions kAfter = {"after", 60};

  static int last() { return GetParam().size - 1; }
  // Runs fn(communicator, stream, x) for each member, x [4 size, 2] i64.
  static void ForEachMember(const std::function<void(Communicator&, Stream&, View)>& fn) {
    GetParam().run([&fn](Communicator& comm, Backend& backend) {
      TestMatrix x(DType::kI64, 4 * comm.size(), 2);
      x.FillNumbers(comm.index());
      fn(comm, *backend.MakeStream(), x.view());
    });
  }
  // Verbs in which every other member needs the last one.
  static std::vector<std::pair<std::string, FailingCall>> CallsThatNeedTheLast() {
    return {
        {"all_to_all_v",
         [](Communicator& c, Stream& s, View x, const CallOptions& o) {
           std::vector<int64_t> offsets;
           for (int j = 0; j <= c.size(); ++j) offsets.push_back(2 * j);
           return c.AllToAllV(s, x.Rows(0, 2 * c.size()), offsets, x.Rows(2 * c.size(), 2 * c.size()), offsets, o);
         }},
        {"all_gather_v",
         [](Communicator& c, Stream& s, View x, const CallOptions& o) {
           std::vector<int64_t> offsets;
           for (int j = 0; j <= c.size(); ++j) offsets.push_back(j);
           return c.AllGatherV(s, x.Rows(0, 1), x.Rows(2, c.size()), offsets, o);
         }},
        {"reduce_scatter",
         [](Communicator& c, Stream& s, View x, const CallOptions& o) {
           return c.ReduceScatter(s, x.Rows(0, c.size()), x.Rows(c.size(), 1), o);
         }},
        {"all_reduce",
         [](Communicator& c, Stream& s, View x, const CallOptions& o) { return c.AllReduce(s, x.Rows(0, 1), o); }},
        {"broadcast", [](Communicator& c, Stream& s, View x,
                         const CallOptions& o) { return c.Broadcast(s, x.Rows(0, 1), last(), o); }},
        {"receive",
         [](Communicator& c, Stream& s, View x, const CallOptions& o) {
           return c.index() == last() ? absl::OkStatus() : c.Receive(s, x.Rows(0, 1), last(), o);
         }},
        {"receive",
         [](Communicator& c, Stream& s, View x, const CallOptions& o) {  // the same in flight
           if (c.index() == last()) return absl::OkStatus();
           c.GroupBegin();
           EXPECT_EQ(c.Receive(s, x.Rows(0, 1), last(), o), absl::OkStatus());
           const absl::StatusOr<Ticket> ticket = c.GroupStart(s);
           return ticket.ok() ? c.Wait(s, *ticket) : ticket.status();
         }},
    };
  }
  static std::string LastMember() { return absl::StrCat("member ", last(), " (rank ", last(), ")"); }
  static void ExpectFailure(const absl::Status& status, absl::StatusCode code, const std::vector<std::string>& words) {
    EXPECT_EQ(status.code(), code) << status;
    for (const std::string& word : words) EXPECT_THAT(std::string(status.message()), testing::HasSubstr(word));
  }
  // Every later call fails with the first failure.
  static void ExpectDead(Communicator& comm, Stream& stream, View x, const absl::Status& first) {
    EXPECT_EQ(comm.failure(), first);
    EXPECT_EQ(comm.AllReduce(stream, x, kAfter), first);
    comm.GroupBegin();
    EXPECT_EQ(comm.Receive(stream, x, (comm.index() + 1) % comm.size(), kAfter), absl::OkStatus());
    EXPECT_EQ(comm.GroupEnd(), first);
    comm.GroupBegin();
    EXPECT_EQ(comm.AllReduce(stream, x, kAfter), absl::OkStatus());
    EXPECT_EQ(comm.GroupStart(stream).status(), first);
  }
};

// Everybody but the last makes the call, and waits for it in vain.
TEST_P(CommunicatorFailureSuite, DeadlinesNameCallGroupAndWhoIsLate) {
  for (const auto& [verb, call] : CallsThatNeedTheLast()) {
    SCOPED_TRACE(verb);
    const std::function<void()> meet = GetParam().make_meeting();
    ForEachMember([&, &verb = verb, &call = call](Communicator& comm, Stream& stream, View x) {
      meet();
      if (comm.index() != last()) {
        const absl::Status status = call(comm, stream, x, kSoon);
        ExpectFailure(status, absl::StatusCode::kDeadlineExceeded,
                      {verb, "'hopeless'", "group 'all'", LastMember() + " had not come after 0.1 s"});
        ExpectDead(comm, stream, x, status);
      }
      meet();
    });
  }
}

// The member whose peers gave up learns it when it needs one of them.
TEST_P(CommunicatorFailureSuite, WhoComesTooLateIsToldWhy) {
  const std::function<void()> meet = GetParam().make_meeting();
  ForEachMember([&](Communicator& comm, Stream& stream, View x) {
    if (comm.index() != last()) {
      EXPECT_FALSE(comm.AllReduce(stream, x, kSoon).ok());
    }
    meet();
    if (comm.index() == last()) {
      (void)comm.AllReduce(stream, x, kPatient);  // what the others left is there; a body may still make the sum
      const absl::Status status = comm.AllReduce(stream, x, kAfter);
      ExpectFailure(status, absl::StatusCode::kUnavailable, {"has left", "had not come after"});
      ExpectDead(comm, stream, x, status);
    }
    meet();
  });
}

// The last member leaves at once: its fn returns.
TEST_P(CommunicatorFailureSuite, WhoLeavesIsNamed) {
  for (const auto& [verb, call] : CallsThatNeedTheLast()) {
    SCOPED_TRACE(verb);
    ForEachMember([&, &verb = verb, &call = call](Communicator& comm, Stream& stream, View x) {
      if (comm.index() == last()) return;
      const absl::Status status = call(comm, stream, x, kPatient);
      ExpectFailure(status, absl::StatusCode::kUnavailable, {verb, "'hopeless'", "group 'all'", LastMember()});
      ExpectDead(comm, stream, x, status);
    });
  }
}

// Its last call is complete for all, however early it leaves; between the others messages go on.
TEST_P(CommunicatorFailureSuite, LeavingHurtsOnlyWhoNeedsTheMember) {
  const std::function<void()> meet = GetParam().make_meeting();
  ForEachMember([&](Communicator& comm, Stream& stream, View x) {
    ASSERT_EQ(comm.AllReduce(stream, x, kPatient), absl::OkStatus());
    if (comm.index() == last()) {
      for (int to = 0; to < last(); ++to) ASSERT_EQ(comm.Send(stream, x, to, kAfter), absl::OkStatus());
      return;
    }
    ASSERT_EQ(comm.Receive(stream, x, last(), kAfter), absl::OkStatus());
    if (comm.index() + 1 < last()) {
      ASSERT_EQ(comm.Send(stream, x, comm.index() + 1, kAfter), absl::OkStatus());
    }
    if (comm.index() > 0) {
      ASSERT_EQ(comm.Receive(stream, x, comm.index() - 1, kAfter), absl::OkStatus());
    }
  });
}

TEST_P(CommunicatorFailureSuite, SendingToWhoHasLeftFails) {
  ForEachMember([&](Communicator& comm, Stream& stream, View x) {
    if (comm.index() == last()) return;
    absl::Status status;
    while (status.ok()) status = comm.Send(stream, x.Rows(0, 1), last(), kPatient);  // until it has gone
    ExpectFailure(status, absl::StatusCode::kUnavailable, {"send 'hopeless'", LastMember()});
  });
}

// Whoever waits, for whomever, is told at once who gave up and why.
TEST_P(CommunicatorFailureSuite, AbortEndsEveryCall) {
  for (const auto& [verb, call] : CallsThatNeedTheLast()) {
    SCOPED_TRACE(verb);
    const std::function<void()> meet = GetParam().make_meeting();
    ForEachMember([&, &verb = verb, &call = call](Communicator& comm, Stream& stream, View x) {
      absl::Status status;
      if (comm.index() == last()) {
        status = absl::DataLossError("the disk is on fire");
        comm.Abort(status);
        EXPECT_EQ(comm.failure(), status);
      } else {
        status = call(comm, stream, x, kPatient);
        ExpectFailure(status, absl::StatusCode::kUnavailable, {"group 'all'", LastMember(), "the disk is on fire"});
      }
      ExpectDead(comm, stream, x, status);
      meet();
    });
  }
}

// Outputs of calls that failed are the caller's again: what comes later does not land there.
TEST_P(CommunicatorFailureSuite, ADeadCommunicatorTouchesNoMemory) {
  const std::function<void()> meet = GetParam().make_meeting();
  ForEachMember([&](Communicator& comm, Stream& stream, View) {
    if (comm.index() > 1) {
      meet();
      meet();
      return;
    }
    TestMatrix late(DType::kF32, 2, 2), in_flight(DType::kF32, 2, 2);
    if (comm.index() == 0) {
      comm.GroupBegin();
      ASSERT_EQ(comm.Receive(stream, in_flight.view(), 1, kPatient), absl::OkStatus());
      ASSERT_EQ(comm.GroupStart(stream).status(), absl::OkStatus());
      EXPECT_EQ(comm.Receive(stream, late.view(), 1, kSoon).code(), absl::StatusCode::kDeadlineExceeded);
    }
    meet();
    if (comm.index() == 1) {
      late.Fill(1);
      (void)comm.Send(stream, late.view(), 0, kPatient);
      (void)comm.Send(stream, late.view(), 0, kPatient);
    }
    meet();
    if (comm.index() == 0) {
      EXPECT_TRUE(late.Untouched());
      EXPECT_TRUE(in_flight.Untouched());
    }
  });
}

// What member 0 does, and what the last member does instead at the same place; the others do as member 0.
struct Mismatch {
  std::string text;
  FailingCall of_first;
  FailingCall of_last;
  std::string first_words;
  std::string last_words;
  bool only_two = false;  // with more members other pairs differ as well
};

inline std::vector<Mismatch> Mismatches() {
  const auto all_reduce = [](int64_t rows, int64_t cols, const char* name) {
    return [=](Communicator& c, Stream& s, View x, const CallOptions&) {
      return c.AllReduce(s, x.Rows(0, rows).Columns(0, cols), {name, 60});
    };
  };
  const auto all_reduce_f64 = [](Communicator& c, Stream& s, View x, const CallOptions&) {
    return c.AllReduce(s, {x.data, DType::kF64, 2, 2}, {"a", 60});
  };
  const auto broadcast = [](int root_from_last) {
    return [=](Communicator& c, Stream& s, View x, const CallOptions&) {
      return c.Broadcast(s, x.Rows(0, 2), c.size() - 1 - root_from_last, {"a", 60});
    };
  };
  const auto to_each = [](int64_t rows_to_first) {  // member 0 expects 1 row of each other
    return [=](Communicator& c, Stream& s, View x, const CallOptions&) {
      std::vector<int64_t> send = {0}, receive = {0};
      for (int j = 0; j < c.size(); ++j) {
        const bool self = j == c.index();
        send.push_back(send.back() + (j == 0 && !self ? rows_to_first : 1));
        receive.push_back(receive.back() + 1);
      }
      return c.AllToAllV(s, x, send, x.Rows(2 * c.size(), c.size()), receive, {"a", 60});
    };
  };
  const auto gather = [](int64_t rows_of_last) {
    return [=](Communicator& c, Stream& s, View x, const CallOptions&) {
      std::vector<int64_t> offsets = {0};
      for (int j = 0; j < c.size(); ++j) offsets.push_back(offsets.back() + (j + 1 == c.size() ? rows_of_last : 1));
      const int64_t rows = offsets[c.index() + 1] - offsets[c.index()];
      return c.AllGatherV(s, x.Rows(0, rows), x.Rows(c.size(), 2 * c.size()), offsets, {"a", 60});
    };
  };
  const auto send = [](int64_t rows, const char* name) {
    return [=](Communicator& c, Stream& s, View x, const CallOptions&) {
      return c.index() == 0 ? c.Send(s, x.Rows(0, rows), c.size() - 1, {name, 60}) : absl::OkStatus();
    };
  };
  const auto receive = [](int64_t rows, const char* name) {
    return [=](Communicator& c, Stream& s, View x, const CallOptions&) {
      return c.Receive(s, x.Rows(0, rows), 0, {name, 60});
    };
  };
  return {
      {"verb", all_reduce(2, 2, "a"), broadcast(0), "all_reduce 'a' i64 [2, 2]", "broadcast 'a' i64 [2, 2]"},
      {"name", all_reduce(2, 2, "a"), all_reduce(2, 2, "b"), "all_reduce 'a' i64 [2, 2]", "all_reduce 'b' i64 [2, 2]"},
      {"rows", all_reduce(2, 2, "a"), all_reduce(3, 2, "a"), "all_reduce 'a' i64 [2, 2]", "all_reduce 'a' i64 [3, 2]"},
      {"columns", all_reduce(2, 2, "a"), all_reduce(2, 1, "a"), "'a' i64 [2, 2]", "all_reduce 'a' i64 [2, 1]"},
      {"dtype", all_reduce(2, 2, "a"), all_reduce_f64, "all_reduce 'a' i64 [2, 2]", "all_reduce 'a' f64 [2, 2]"},
      {"root", broadcast(0), broadcast(1), "broadcast 'a' i64 [2, 2] from", "broadcast 'a' i64 [2, 2] from"},
      {"rows to one", to_each(1), to_each(2), "all_to_all_v 'a'", "sends 2 rows to member 0 (rank 0), which expects 1"},
      {"rows of one", gather(1), gather(2), "all_gather_v 'a'", "sends 2 rows to member 0 (rank 0), which expects 1"},
      {"message's rows", send(2, "a"), receive(1, "a"), "send 'a' i64 [2, 2] to", "receive 'a' i64 [1, 2] from"},
      {"message's name", send(2, "a"), receive(2, "b"), "send 'a' i64 [2, 2] to", "receive 'b' i64 [2, 2] from"},
      {"send and all", send(2, "a"), all_reduce(2, 2, "a"), "send 'a' i64 [2, 2]", "all_reduce 'a' i64 [2, 2]", true},
      {"all and receive", all_reduce(2, 2, "a"), receive(2, "a"), "all_reduce 'a' i64 [2, 2]",
       "receive 'a' i64 [2, 2]"},
  };
}

// Both calls are named to every member: at the call itself, or, to one that had completed it before, at its next one.
TEST_P(CommunicatorFailureSuite, MismatchesAreToldToEveryMember) {
  for (const Mismatch& mismatch : Mismatches()) {
    SCOPED_TRACE(mismatch.text);
    if (mismatch.only_two && GetParam().size != 2) continue;
    const std::function<void()> meet = GetParam().make_meeting();
    ForEachMember([&](Communicator& comm, Stream& stream, View x) {
      absl::Status status = (comm.index() == last() ? mismatch.of_last : mismatch.of_first)(comm, stream, x, kPatient);
      if (status.ok()) status = comm.AllReduce(stream, x.Rows(0, 1), kAfter);
      ExpectFailure(status, absl::StatusCode::kFailedPrecondition,
                    {"group 'all'", mismatch.first_words, mismatch.last_words, LastMember()});
      ExpectDead(comm, stream, x, status);
      meet();
    });
  }
}

// Nobody hangs when one member's program is cut short or changed at a random place.
TEST_P(CommunicatorFailureSuite, RandomFaultsReachEverybody) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const std::function<void()> meet = GetParam().make_meeting();
    ForEachMember([&](Communicator& comm, Stream& stream, View x) {
      Dice dice(seed, 0);
      const int64_t culprit = dice.Below(comm.size()), fault = dice.Below(3), at = dice.Below(20);
      absl::Status status;
      Ticket ticket;
      for (int64_t step = 0; step < 40 && status.ok(); ++step) {
        const int64_t peer_step = dice.Below(comm.size() - 1) + 1, verb = dice.Below(3);
        if (step == at && comm.index() == culprit) {
          if (fault == 0) break;  // leaves without a word
          if (fault == 1) comm.Abort(absl::InternalError("fault"));
        }
        const bool other = step == at && comm.index() == culprit && fault == 2;
        const CallOptions options = {other ? "another call" : "call", 60};
        if (ticket) status = comm.Wait(stream, ticket);
        ticket = {};
        if (!status.ok()) break;
        comm.GroupBegin();
        if (verb == 0) (void)comm.AllReduce(stream, x.Rows(0, 1), options);
        if (verb == 1) (void)comm.Broadcast(stream, x.Rows(0, 1), static_cast<int>(peer_step) - 1, options);
        (void)comm.Send(stream, x.Rows(1, 1), static_cast<int>((comm.index() + peer_step) % comm.size()), options);
        (void)comm.Receive(stream, x.Rows(2, 1),
                           static_cast<int>((comm.index() + comm.size() - peer_step) % comm.size()), options);
        const absl::StatusOr<Ticket> started = comm.GroupStart(stream);
        status = started.status();
        if (status.ok()) ticket = *started;
      }
      if (status.ok() && ticket) status = comm.Wait(stream, ticket);
      if (comm.index() == culprit && fault == 0) return;
      EXPECT_FALSE(status.ok());
      EXPECT_TRUE(status.code() == absl::StatusCode::kUnavailable ||
                  status.code() == absl::StatusCode::kFailedPrecondition ||
                  status.code() == absl::StatusCode::kInternal)
          << status;
    });
  }
}

}  // namespace shoestring
