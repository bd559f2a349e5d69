// The parity suite of communicators: what every body must do, member by member, against plain loops.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "parallel/communicator.h"
#include "tests/parallel/communicator_bodies.h"

namespace shoestring {

class CommunicatorSuite : public testing::TestWithParam<CommunicatorBody> {
 protected:
  static constexpr CallOptions kCall = {"test", 20};
  // Runs fn(communicator, stream) for each member.
  static void ForEachMember(const std::function<void(Communicator&, Stream&)>& fn) {
    GetParam().run([&fn](Communicator& comm, Backend& backend) { fn(comm, *backend.MakeStream()); });
  }
  // Offsets of parts with rows(j) rows for each member j.
  template <typename Rows>
  static std::vector<int64_t> Offsets(const Communicator& comm, Rows rows, int64_t first = 0) {
    std::vector<int64_t> offsets = {first};
    for (int j = 0; j < comm.size(); ++j) offsets.push_back(offsets.back() + rows(j));
    return offsets;
  }
};

TEST_P(CommunicatorSuite, KnowsItsPlace) {
  ForEachMember([](Communicator& comm, Stream&) {
    EXPECT_EQ(comm.size(), GetParam().size);
    EXPECT_GE(comm.index(), 0);
    EXPECT_LT(comm.index(), comm.size());
    EXPECT_FALSE(comm.body().empty());
    EXPECT_EQ(comm.failure(), absl::OkStatus());
  });
}

// Member i sends (i + 2 j) % 3 rows to member j: empty, equal and unequal parts all occur. Rows before the first part
// and behind the last belong to nobody.
TEST_P(CommunicatorSuite, AllToAllVOfEveryType) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    const auto rows = [](int from, int to) { return (from + 2 * to) % 3 + (from == to ? 1 : 0); };
    const int me = comm.index();
    for (const DType dtype : kAllDTypes) {
      const std::vector<int64_t> send_offsets = Offsets(
          comm, [&](int j) { return rows(me, j); }, 1);
      const std::vector<int64_t> receive_offsets = Offsets(
          comm, [&](int j) { return rows(j, me); }, 2);
      TestMatrix send(dtype, send_offsets.back() + 1, 6, 2), receive(dtype, receive_offsets.back() + 3, 6, 4);
      send.Fill(me);
      ASSERT_EQ(comm.AllToAllV(stream, send.view(), send_offsets, receive.view(), receive_offsets, kCall),
                absl::OkStatus());
      for (int from = 0; from < comm.size(); ++from) {
        const int64_t source = Offsets(
            comm, [&](int j) { return rows(from, j); }, 1)[me];
        EXPECT_TRUE(receive.HasRows(receive_offsets[from], rows(from, me), from, source));
      }
      EXPECT_TRUE(receive.PaddingUntouched());
      EXPECT_EQ(receive.view().row_bytes(1)[0], std::byte{0xEE});
      EXPECT_EQ(receive.view().row_bytes(receive_offsets.back())[0], std::byte{0xEE});
    }
  });
}

// Member 0 has no rows. In place for the last type.
TEST_P(CommunicatorSuite, AllGatherVOfEveryType) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    const std::vector<int64_t> offsets = Offsets(comm, [](int j) { return 2 * j; });
    for (const DType dtype : kAllDTypes) {
      TestMatrix send(dtype, 2 * comm.index(), 4, 2), receive(dtype, offsets.back(), 4, 2);
      send.Fill(comm.index());
      ConstView input = send.view();
      if (dtype == DType::kU8) {
        const View own = receive.view().Rows(offsets[comm.index()], 2 * comm.index());
        if (!own.empty()) std::memcpy(own.data, input.data, BytesOf(dtype, 2 * comm.index() * 6));
        input = own;
      }
      ASSERT_EQ(comm.AllGatherV(stream, input, receive.view(), offsets, kCall), absl::OkStatus());
      for (int j = 0; j < comm.size(); ++j) EXPECT_TRUE(receive.HasRows(offsets[j], 2 * j, j, 0));
      EXPECT_TRUE(receive.PaddingUntouched());
    }
  });
}

// Whole numbers, so that any order of the sum gives the same value.
TEST_P(CommunicatorSuite, SumsOfEveryTypeAndOddSizes) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    std::vector<uint64_t> tags;
    for (int j = 0; j < comm.size(); ++j) tags.push_back(j);
    for (const DType dtype : kSummable) {
      for (const int64_t rows : {0, 1, 3}) {
        for (const int64_t cols : {1, 7, 130}) {
          TestMatrix all(dtype, rows * comm.size(), cols, 3), part(dtype, rows, cols, 1);
          all.FillNumbers(comm.index());
          ASSERT_EQ(comm.ReduceScatter(stream, all.view(), part.view(), kCall), absl::OkStatus());
          ASSERT_EQ(comm.AllReduce(stream, all.view(), kCall), absl::OkStatus());
          EXPECT_TRUE(part.HasSums(tags, comm.index() * rows));
          EXPECT_TRUE(all.HasSums(tags, 0));
          EXPECT_TRUE(part.PaddingUntouched());
          EXPECT_TRUE(all.PaddingUntouched());
        }
      }
    }
  });
}

TEST_P(CommunicatorSuite, BroadcastFromEveryMember) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    for (const DType dtype : kAllDTypes) {
      for (int root = 0; root < comm.size(); ++root) {
        TestMatrix x(dtype, 3, 4, 2);
        x.Fill(comm.index());
        ASSERT_EQ(comm.Broadcast(stream, x.view(), root, kCall), absl::OkStatus());
        EXPECT_TRUE(x.HasRows(0, 3, root, 0));
        EXPECT_TRUE(x.PaddingUntouched());
      }
    }
  });
}

// A ring inside a group: everybody sends two messages to the next member, itself in a group of one; they keep order.
TEST_P(CommunicatorSuite, SendReceiveRing) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    const int next = (comm.index() + 1) % comm.size();
    const int previous = (comm.index() + comm.size() - 1) % comm.size();
    for (const DType dtype : kAllDTypes) {
      TestMatrix sent[2] = {TestMatrix(dtype, 2, 4), TestMatrix(dtype, 0, 4)};
      TestMatrix got[2] = {TestMatrix(dtype, 2, 4), TestMatrix(dtype, 0, 4)};
      sent[0].Fill(comm.index());
      comm.GroupBegin();
      for (TestMatrix& x : got) ASSERT_EQ(comm.Receive(stream, x.view(), previous, kCall), absl::OkStatus());
      for (TestMatrix& x : sent) ASSERT_EQ(comm.Send(stream, x.view(), next, kCall), absl::OkStatus());
      ASSERT_EQ(comm.GroupEnd(), absl::OkStatus());
      EXPECT_TRUE(got[0].HasRows(0, 2, previous, 0));
    }
  });
}

// Everybody sends everything first and may change it at once; then everybody receives, the later senders first.
TEST_P(CommunicatorSuite, SendsWaitForNobody) {
  if (!GetParam().sends_wait_for_nobody)
    GTEST_SKIP() << "needs sends that wait for nobody; " << GetParam().name << " does not promise them";
  ForEachMember([](Communicator& comm, Stream& stream) {
    TestMatrix x(DType::kF32, 5, 3);
    for (int round = 0; round < 3; ++round) {
      for (int to = 0; to < comm.size(); ++to) {
        if (to == comm.index()) continue;
        x.Fill(100 * round + comm.index());
        ASSERT_EQ(comm.Send(stream, x.view(), to, kCall), absl::OkStatus());
        x.Fill(999);
      }
    }
    for (int from = comm.size() - 1; from >= 0; --from) {
      for (int round = 0; round < 3 && from != comm.index(); ++round) {
        ASSERT_EQ(comm.Receive(stream, x.view(), from, kCall), absl::OkStatus());
        EXPECT_TRUE(x.HasRows(0, 5, 100 * round + from, 0));
      }
    }
  });
}

// Several exchanges in flight, waited for in every order, while another is made and completed.
TEST_P(CommunicatorSuite, TicketsAreWaitedForInEveryOrder) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    const std::vector<int64_t> offsets = Offsets(comm, [](int) { return 2; });
    for (const std::vector<int>& order :
         std::vector<std::vector<int>>{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}) {
      std::vector<TestMatrix> send(4, TestMatrix(DType::kBF16, offsets.back(), 8)), got = send;
      for (int i = 0; i < 4; ++i) send[i].Fill(10 * comm.index() + i);
      Ticket tickets[3];
      for (int i = 0; i < 3; ++i) {
        comm.GroupBegin();
        ASSERT_EQ(comm.AllToAllV(stream, send[i].view(), offsets, got[i].view(), offsets, kCall), absl::OkStatus());
        const absl::StatusOr<Ticket> ticket = comm.GroupStart(stream);
        ASSERT_EQ(ticket.status(), absl::OkStatus());
        tickets[i] = *ticket;
      }
      ASSERT_EQ(comm.AllToAllV(stream, send[3].view(), offsets, got[3].view(), offsets, kCall), absl::OkStatus());
      for (const int i : order) {
        ASSERT_EQ(comm.Wait(stream, tickets[i]), absl::OkStatus());
        for (int from = 0; from < comm.size(); ++from) {
          EXPECT_TRUE(got[i].HasRows(2 * from, 2, 10 * from + i, 2 * comm.index()));
        }
      }
      for (int from = 0; from < comm.size(); ++from) {
        EXPECT_TRUE(got[3].HasRows(2 * from, 2, 10 * from + 3, 2 * comm.index()));
      }
    }
  });
}

// A receive in flight keeps no later send back: each pair would wait for ever otherwise.
TEST_P(CommunicatorSuite, SendsOvertakeReceivesInFlight) {
  if (!GetParam().sends_wait_for_nobody)
    GTEST_SKIP() << "needs sends that wait for nobody; " << GetParam().name << " does not promise them";
  ForEachMember([](Communicator& comm, Stream& stream) {
    if (comm.size() % 2 != 0) return;
    const int other = comm.index() ^ 1;
    TestMatrix x(DType::kF32, 2, 2), y(DType::kF32, 2, 2);
    x.Fill(comm.index());
    comm.GroupBegin();
    ASSERT_EQ(comm.Receive(stream, y.view(), other, kCall), absl::OkStatus());
    const absl::StatusOr<Ticket> ticket = comm.GroupStart(stream);
    ASSERT_EQ(ticket.status(), absl::OkStatus());
    ASSERT_EQ(comm.Send(stream, x.view(), other, kCall), absl::OkStatus());
    ASSERT_EQ(comm.Wait(stream, *ticket), absl::OkStatus());
    EXPECT_TRUE(y.HasRows(0, 2, other, 0));
  });
}

TEST_P(CommunicatorSuite, EmptyGroupsAreComplete) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    comm.GroupBegin();
    EXPECT_EQ(comm.GroupEnd(), absl::OkStatus());
    comm.GroupBegin();
    const absl::StatusOr<Ticket> ticket = comm.GroupStart(stream);
    ASSERT_EQ(ticket.status(), absl::OkStatus());
    EXPECT_EQ(comm.Wait(stream, *ticket), absl::OkStatus());
  });
}

TEST_P(CommunicatorSuite, TimesAreInOrder) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    TestMatrix x(DType::kF64, 1, 1);
    x.FillNumbers(1);
    const auto in_order = [&comm](const CallTimes& times) {
      EXPECT_GT(times.started, 0);
      EXPECT_LE(times.started, times.wait_began);
      EXPECT_LE(times.wait_began, times.wait_ended);
      EXPECT_LE(times.started, times.arrived);
      EXPECT_LE(times.arrived, times.done);
      EXPECT_LE(times.done, times.wait_ended);
    };
    ASSERT_EQ(comm.AllReduce(stream, x.view(), kCall), absl::OkStatus());
    in_order(comm.last_times());
    EXPECT_EQ(comm.last_times().started, comm.last_times().wait_began);
    const int64_t before = comm.last_times().wait_ended;
    comm.GroupBegin();
    ASSERT_EQ(comm.AllReduce(stream, x.view(), kCall), absl::OkStatus());
    const absl::StatusOr<Ticket> ticket = comm.GroupStart(stream);
    ASSERT_EQ(comm.Wait(stream, *ticket), absl::OkStatus());
    in_order(comm.last_times());
    EXPECT_LE(before, comm.last_times().started);
  });
}

// Counted by hand: n members, matrices of 4 columns of 2 bytes.
TEST_P(CommunicatorSuite, CountsMessagesAndBytes) {
  ForEachMember([](Communicator& comm, Stream& stream) {
    const int64_t n = comm.size(), others = n - 1, row = 8;
    TestMatrix x(DType::kBF16, n, 4), y(DType::kBF16, n, 4), number(DType::kI64, n, 1), part(DType::kI64, 1, 1);
    number.FillNumbers(0);
    const std::vector<int64_t> one_each = Offsets(comm, [](int) { return 1; });
    ASSERT_EQ(comm.AllToAllV(stream, x.view(), one_each, y.view(), one_each, kCall), absl::OkStatus());
    EXPECT_EQ(comm.counters()[CallVerb::kAllToAllV], (VerbCounters{1, others, others * row, others, others * row}));
    // Only member 0 has rows.
    const std::vector<int64_t> first = Offsets(comm, [](int j) { return j == 0 ? 3 : 0; });
    TestMatrix three(DType::kBF16, 3, 4);
    const bool is_first = comm.index() == 0;
    ASSERT_EQ(comm.AllGatherV(stream, ConstView(three.view()).Rows(0, is_first ? 3 : 0), three.view(), first, kCall),
              absl::OkStatus());
    EXPECT_EQ(comm.counters()[CallVerb::kAllGatherV],
              is_first ? (VerbCounters{1, others, others * 3 * row, 0, 0}) : (VerbCounters{1, 0, 0, 1, 3 * row}));
    ASSERT_EQ(comm.ReduceScatter(stream, number.view(), part.view(), kCall), absl::OkStatus());
    EXPECT_EQ(comm.counters()[CallVerb::kReduceScatter], (VerbCounters{1, others, others * 8, others, others * 8}));
    ASSERT_EQ(comm.AllReduce(stream, number.view(), kCall), absl::OkStatus());
    EXPECT_EQ(comm.counters()[CallVerb::kAllReduce], (VerbCounters{1, others, others * n * 8, others, others * n * 8}));
    ASSERT_EQ(comm.Broadcast(stream, x.view(), 0, kCall), absl::OkStatus());
    EXPECT_EQ(comm.counters()[CallVerb::kBroadcast],
              is_first ? (VerbCounters{1, others, others * n * row, 0, 0}) : (VerbCounters{1, 0, 0, 1, n * row}));
    comm.GroupBegin();
    ASSERT_EQ(comm.Send(stream, x.view(), comm.index(), kCall), absl::OkStatus());
    ASSERT_EQ(comm.Receive(stream, y.view(), comm.index(), kCall), absl::OkStatus());
    for (int j = 0; j < n; ++j) {
      if (j == comm.index()) continue;
      ASSERT_EQ(comm.Send(stream, x.view(), j, kCall), absl::OkStatus());
      ASSERT_EQ(comm.Receive(stream, y.view(), j, kCall), absl::OkStatus());
    }
    ASSERT_EQ(comm.GroupEnd(), absl::OkStatus());
    EXPECT_EQ(comm.counters()[CallVerb::kSend], (VerbCounters{n, others, others * n * row, 0, 0}));
    EXPECT_EQ(comm.counters()[CallVerb::kReceive], (VerbCounters{n, 0, 0, others, others * n * row}));
    EXPECT_EQ(comm.counters().Total().calls, 5 + 2 * n);
    comm.ResetCounters();
    EXPECT_EQ(comm.counters(), CommunicationCounters());
  });
}

}  // namespace shoestring
