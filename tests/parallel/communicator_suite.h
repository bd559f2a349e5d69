// The parity suite of communicators: what every body must do, member by member, against plain loops.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "parallel/communicator.h"

namespace shoestring {

// One body under test. `run` calls fn once for each member of a group of `size`, each with its own communicator and
// backend, at the same time where size > 1, and returns when all have.
struct CommunicatorBody {
  std::string name;
  int size = 1;
  std::function<void(const std::function<void(Communicator&, Backend&)>& fn)> run;
};

inline void PrintTo(const CommunicatorBody& body, std::ostream* out) { *out << body.name << body.size; }

class CommunicatorSuite : public testing::TestWithParam<CommunicatorBody> {
 protected:
  // A host matrix; the value of an element says who made it and where it was.
  struct Matrix {
    Matrix(int64_t rows, int64_t cols) : rows(rows), cols(cols), values(rows * cols, -1.0f) {}
    static Matrix From(int member, int64_t rows, int64_t cols) {
      Matrix m(rows, cols);
      for (int64_t i = 0; i < rows * cols; ++i) m.values[i] = static_cast<float>(member * 1000 + i);
      return m;
    }
    View view() { return {reinterpret_cast<std::byte*>(values.data()), DType::kF32, rows, cols}; }
    int64_t rows, cols;
    std::vector<float> values;
  };
  static constexpr int64_t kCols = 3;
};

TEST_P(CommunicatorSuite, KnowsItsPlace) {
  GetParam().run([&](Communicator& comm, Backend&) {
    EXPECT_EQ(comm.size(), GetParam().size);
    EXPECT_GE(comm.index(), 0);
    EXPECT_LT(comm.index(), comm.size());
    EXPECT_FALSE(comm.body().empty());
  });
}

// Member i sends (i + 2 j) % 3 rows to member j: empty, equal and unequal parts all occur.
TEST_P(CommunicatorSuite, AllToAllV) {
  GetParam().run([&](Communicator& comm, Backend& backend) {
    const auto rows = [](int from, int to) { return (from + 2 * to) % 3 + (from == to ? 1 : 0); };
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    std::vector<int64_t> send_offsets = {0}, receive_offsets = {0};
    for (int j = 0; j < comm.size(); ++j) {
      send_offsets.push_back(send_offsets.back() + rows(comm.index(), j));
      receive_offsets.push_back(receive_offsets.back() + rows(j, comm.index()));
    }
    Matrix send = Matrix::From(comm.index(), send_offsets.back(), kCols);
    Matrix receive(receive_offsets.back(), kCols);
    ASSERT_TRUE(comm.AllToAllV(*stream, send.view(), send_offsets, receive.view(), receive_offsets, {"test", 10}).ok());
    backend.Synchronize(*stream);
    for (int from = 0; from < comm.size(); ++from) {
      int64_t first = 0;
      for (int j = 0; j < comm.index(); ++j) first += rows(from, j);
      for (int64_t i = 0; i < rows(from, comm.index()) * kCols; ++i) {
        EXPECT_EQ(receive.values[receive_offsets[from] * kCols + i], from * 1000 + first * kCols + i);
      }
    }
  });
}

TEST_P(CommunicatorSuite, AllGatherV) {
  GetParam().run([&](Communicator& comm, Backend& backend) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    std::vector<int64_t> offsets = {0};
    for (int j = 0; j < comm.size(); ++j) offsets.push_back(offsets.back() + j + 1);
    Matrix send = Matrix::From(comm.index(), comm.index() + 1, kCols);
    Matrix receive(offsets.back(), kCols);
    ASSERT_TRUE(comm.AllGatherV(*stream, send.view(), receive.view(), offsets, {"test", 10}).ok());
    backend.Synchronize(*stream);
    for (int j = 0; j < comm.size(); ++j) {
      for (int64_t i = 0; i < (j + 1) * kCols; ++i) {
        EXPECT_EQ(receive.values[offsets[j] * kCols + i], j * 1000 + i);
      }
    }
  });
}

// Whole numbers, so that any order of the sum gives the same value.
TEST_P(CommunicatorSuite, ReduceScatterAndAllReduce) {
  GetParam().run([&](Communicator& comm, Backend& backend) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    const int n = comm.size();
    const auto sum_at = [n](int64_t i) { return static_cast<float>(1000 * n * (n - 1) / 2 + n * i); };
    Matrix all = Matrix::From(comm.index(), 2 * n, kCols);
    Matrix part(2, kCols);
    ASSERT_TRUE(comm.ReduceScatter(*stream, all.view(), part.view(), {"test", 10}).ok());
    ASSERT_TRUE(comm.AllReduce(*stream, all.view(), {"test", 10}).ok());
    backend.Synchronize(*stream);
    for (int64_t i = 0; i < 2 * kCols; ++i) EXPECT_EQ(part.values[i], sum_at(comm.index() * 2 * kCols + i));
    for (int64_t i = 0; i < 2 * n * kCols; ++i) EXPECT_EQ(all.values[i], sum_at(i));
  });
}

TEST_P(CommunicatorSuite, BroadcastFromTheLast) {
  GetParam().run([&](Communicator& comm, Backend& backend) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    Matrix x = Matrix::From(comm.index(), 2, kCols);
    ASSERT_TRUE(comm.Broadcast(*stream, x.view(), comm.size() - 1, {"test", 10}).ok());
    backend.Synchronize(*stream);
    EXPECT_EQ(x.values, Matrix::From(comm.size() - 1, 2, kCols).values);
  });
}

// A ring inside a group: everybody sends two messages to the next member, itself in a group of one; they keep order.
TEST_P(CommunicatorSuite, SendReceiveRing) {
  GetParam().run([&](Communicator& comm, Backend& backend) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    const int next = (comm.index() + 1) % comm.size();
    const int previous = (comm.index() + comm.size() - 1) % comm.size();
    Matrix first = Matrix::From(comm.index(), 2, kCols);
    Matrix second = Matrix::From(comm.index() + 100, 2, kCols);
    Matrix got_first(2, kCols), got_second(2, kCols);
    comm.GroupBegin();
    ASSERT_TRUE(comm.Send(*stream, first.view(), next, {"test", 10}).ok());
    ASSERT_TRUE(comm.Send(*stream, second.view(), next, {"test", 10}).ok());
    ASSERT_TRUE(comm.Receive(*stream, got_first.view(), previous, {"test", 10}).ok());
    ASSERT_TRUE(comm.Receive(*stream, got_second.view(), previous, {"test", 10}).ok());
    ASSERT_TRUE(comm.GroupEnd().ok());
    backend.Synchronize(*stream);
    EXPECT_EQ(got_first.values, Matrix::From(previous, 2, kCols).values);
    EXPECT_EQ(got_second.values, Matrix::From(previous + 100, 2, kCols).values);
  });
}

// Two exchanges in flight, waited for in the other order, while a third is made and completed.
TEST_P(CommunicatorSuite, TicketsAreWaitedForInAnyOrder) {
  GetParam().run([&](Communicator& comm, Backend& backend) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    const int n = comm.size();
    std::vector<int64_t> offsets(n + 1);
    for (int j = 0; j <= n; ++j) offsets[j] = 2 * j;
    Matrix send[3] = {Matrix::From(comm.index(), 2 * n, kCols), Matrix::From(comm.index() + 100, 2 * n, kCols),
                      Matrix::From(comm.index() + 200, 2 * n, kCols)};
    Matrix got[3] = {Matrix(2 * n, kCols), Matrix(2 * n, kCols), Matrix(2 * n, kCols)};
    Ticket tickets[2];
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 2; ++i) {
        comm.GroupBegin();
        ASSERT_TRUE(comm.AllToAllV(*stream, send[i].view(), offsets, got[i].view(), offsets, {"flight", 10}).ok());
        absl::StatusOr<Ticket> ticket = comm.GroupStart(*stream);
        ASSERT_TRUE(ticket.ok());
        tickets[i] = *ticket;
      }
      ASSERT_TRUE(comm.AllToAllV(*stream, send[2].view(), offsets, got[2].view(), offsets, {"between", 10}).ok());
      for (int i : {1, 0}) ASSERT_EQ(comm.Wait(*stream, tickets[i]), absl::OkStatus());
      for (int i = 0; i < 3; ++i) {
        for (int from = 0; from < n; ++from) {
          for (int64_t k = 0; k < 2 * kCols; ++k) {
            EXPECT_EQ(got[i].values[2 * from * kCols + k], (from + 100 * i) * 1000 + 2 * comm.index() * kCols + k);
          }
        }
      }
    }
    const CallTimes& times = comm.last_times();
    EXPECT_LE(times.started, times.arrived);
    EXPECT_LE(times.started, times.wait_began);
    EXPECT_LE(times.wait_began, times.wait_ended);
    EXPECT_LE(times.done, times.wait_ended);
  });
}

}  // namespace shoestring
