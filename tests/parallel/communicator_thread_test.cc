// What is particular to ranks that are threads: order of sums, many ranks, several groups, workers, memory.
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <thread>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "parallel/thread_communicator.h"
#include "tests/base/counting_heap.h"
#include "tests/parallel/communicator_bodies.h"

namespace shoestring {
namespace {

RankGroup GroupOf(const std::string& name, int first, int count, int step = 1) {
  RankGroup group{name, {}};
  for (int i = 0; i < count; ++i) group.members.push_back(Rank(first + i * step));
  return group;
}

// Runs fn(i) on a thread for each i.
void OnThreads(int count, const std::function<void(int)>& fn) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&fn, i] { fn(i); });
  for (std::thread& thread : threads) thread.join();
}

int ThreadsOfProcess() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<int>(std::distance(begin(tasks), end(tasks)));
}

// Numbers whose sum depends on the order; by index of the member is the only right one.
TEST(ThreadCommunicatorTest, SumsAreInOrderOfMembers) {
  constexpr int kSize = 5, kCount = 64;
  const auto value = [](int member, int i) {
    return static_cast<float>(Rng(5, RngPurpose::kTest, member).Normal(i) * std::pow(10.0, (member * 7 + i) % 9));
  };
  const auto expected = [&](int i) {
    float sum = value(0, i);
    for (int j = 1; j < kSize; ++j) sum += value(j, i);
    return sum;
  };
  for (int round = 0; round < 20; ++round) {
    ThreadBody(kSize).run([&](Communicator& comm, Backend& backend) {
      const std::unique_ptr<Stream> stream = backend.MakeStream();
      std::vector<float> x(kSize * kCount), part(kCount);
      for (int i = 0; i < kSize * kCount; ++i) x[i] = value(comm.index(), i);
      const View all(reinterpret_cast<std::byte*>(x.data()), DType::kF32, kSize, kCount);
      const View own(reinterpret_cast<std::byte*>(part.data()), DType::kF32, 1, kCount);
      ASSERT_TRUE(comm.ReduceScatter(*stream, all, own, {"part", 20}).ok());
      ASSERT_TRUE(comm.AllReduce(*stream, all, {"all", 20}).ok());
      for (int i = 0; i < kCount; ++i) ASSERT_EQ(part[i], expected(comm.index() * kCount + i));
      for (int i = 0; i < kSize * kCount; ++i) ASSERT_EQ(x[i], expected(i));
    });
  }
}

// A grid of 2 x 3 ranks with a group for each row, each column and all; names and places are those of the group.
TEST(ThreadCommunicatorTest, SeveralGroupsOverTheSameRanks) {
  constexpr int kRows = 2, kColumns = 3, kRanks = kRows * kColumns;
  ThreadWorld world(kRanks);
  std::vector<std::vector<std::unique_ptr<Communicator>>> of_row, of_column;
  for (int r = 0; r < kRows; ++r) of_row.push_back(world.MakeGroup(GroupOf("row", r * kColumns, kColumns)));
  for (int c = 0; c < kColumns; ++c) of_column.push_back(world.MakeGroup(GroupOf("column", c, kRows, kColumns)));
  std::vector<std::unique_ptr<Communicator>> of_all = world.MakeGroup(GroupOf("all", 0, kRanks));
  OnThreads(kRanks, [&](int rank) {
    const std::unique_ptr<Backend> backend = MakeCpuBackend({});
    const std::unique_ptr<Stream> stream = backend->MakeStream();
    for (int64_t round = 0; round < 50; ++round) {
      int64_t numbers[3] = {rank, rank, rank};
      const auto view = [&](int i) { return View(reinterpret_cast<std::byte*>(numbers + i), DType::kI64, 1, 1); };
      Communicator& row = *of_row[rank / kColumns][rank % kColumns];
      Communicator& column = *of_column[rank % kColumns][rank / kColumns];
      row.GroupBegin();
      ASSERT_TRUE(row.AllReduce(*stream, view(0), {"row", 20}).ok());
      const absl::StatusOr<Ticket> ticket = row.GroupStart(*stream);
      ASSERT_TRUE(column.AllReduce(*stream, view(1), {"column", 20}).ok());
      ASSERT_TRUE(of_all[rank]->AllReduce(*stream, view(2), {"all", 20}).ok());
      ASSERT_TRUE(row.Wait(*stream, *ticket).ok());
      EXPECT_EQ(numbers[0], rank / kColumns * kColumns * kColumns + 3);
      EXPECT_EQ(numbers[1], 2 * (rank % kColumns) + kColumns);
      EXPECT_EQ(numbers[2], 15);
    }
  });
}

// 1,024 ranks, all verbs; without calls in flight no thread is started beside theirs.
TEST(ThreadCommunicatorTest, ManyRanksAndNoWorkersWithoutNeed) {
  constexpr int kRanks = 1024;
  const int before = ThreadsOfProcess();
  ThreadWorld world(kRanks);
  std::vector<std::unique_ptr<Communicator>> all = world.MakeGroup(GroupOf("all", 0, kRanks));
  std::vector<std::vector<std::unique_ptr<Communicator>>> sixteens;
  for (int i = 0; i < kRanks / 16; ++i) sixteens.push_back(world.MakeGroup(GroupOf("sixteen", 16 * i, 16)));
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  std::atomic<int> most_threads = 0, right = 0;
  OnThreads(kRanks, [&](int rank) {
    const CallOptions call = {"many", 120};
    int64_t sum = rank;
    const View x(reinterpret_cast<std::byte*>(&sum), DType::kI64, 1, 1);
    absl::Status status = all[rank]->AllReduce(*stream, x, call);
    if (rank == kRanks / 2) most_threads = ThreadsOfProcess();
    Communicator& sixteen = *sixteens[rank / 16][rank % 16];
    std::vector<int64_t> offsets(17);
    for (int j = 0; j <= 16; ++j) offsets[j] = j;
    TestMatrix send(DType::kBF16, 16, 8), receive(DType::kBF16, 16, 8);
    send.Fill(rank);
    status.Update(sixteen.AllToAllV(*stream, send.view(), offsets, receive.view(), offsets, call));
    for (int j = 0; j < 16; ++j) {
      if (!receive.HasRows(j, 1, rank / 16 * 16 + j, rank % 16)) status.Update(absl::InternalError("wrong row"));
    }
    if (rank > 0) status.Update(all[rank]->Send(*stream, x, 0, call));
    for (int j = 1; j < kRanks && rank == 0; ++j) status.Update(all[0]->Receive(*stream, x, j, call));
    status.Update(all[rank]->Broadcast(*stream, x, 7, call));
    if (status.ok() && sum == int64_t{kRanks} * (kRanks - 1) / 2) ++right;
  });
  EXPECT_EQ(right, kRanks);
  EXPECT_LE(most_threads, before + kRanks);
}

// What is in flight is complete before anybody waits for it: a worker moves it while the ranks do something else.
TEST(ThreadCommunicatorTest, DataMovesWhileRanksCompute) {
  constexpr int kSize = 3;
  const std::vector<int64_t> offsets = {0, 500, 1000, 1500};
  ThreadBody(kSize).run([&](Communicator& comm, Backend& backend) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    TestMatrix send(DType::kF32, 1500, 64), receive(DType::kF32, 1500, 64);
    send.Fill(comm.index());
    bool hidden = false;
    for (int64_t pause_ms = 5; pause_ms < 5000 && !hidden; pause_ms *= 2) {
      comm.GroupBegin();
      ASSERT_TRUE(comm.AllToAllV(*stream, send.view(), offsets, receive.view(), offsets, {"hidden", 60}).ok());
      const absl::StatusOr<Ticket> ticket = comm.GroupStart(*stream);
      ASSERT_TRUE(ticket.ok());
      std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
      ASSERT_TRUE(comm.Wait(*stream, *ticket).ok());
      for (int j = 0; j < kSize; ++j) EXPECT_TRUE(receive.HasRows(500 * j, 500, j, 500 * comm.index()));
      // All members take as many rounds.
      int64_t not_hidden = comm.last_times().done < comm.last_times().wait_began ? 0 : 1;
      const View x(reinterpret_cast<std::byte*>(&not_hidden), DType::kI64, 1, 1);
      ASSERT_TRUE(comm.AllReduce(*stream, x, {"again?", 60}).ok());
      hidden = not_hidden == 0;
    }
    EXPECT_TRUE(hidden);
  });
}

// Once every buffer has been needed, calls neither allocate payloads nor anything else.
TEST(ThreadCommunicatorTest, AllocatesNothingOnceWarm) {
  constexpr int kSize = 3;
  std::atomic<int64_t> before = 0, after = 0;
  const std::function<void()> meet = ThreadBody(kSize).make_meeting();
  ThreadBody(kSize).run([&](Communicator& comm, Backend& backend) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    TestMatrix x(DType::kI64, 9, 3), y(DType::kI64, 9, 3), z(DType::kI64, 9, 3);
    x.FillNumbers(1);
    z.FillNumbers(2);
    const std::vector<int64_t> offsets = {0, 3, 6, 9};
    const CallOptions call = {"a name that is too long to be stored inside a string", 20};
    const int next = (comm.index() + 1) % kSize, previous = (comm.index() + 2) % kSize;
    absl::Status status;
    // The most that a round can need at once: no slot and no message is free again before every input was left.
    const auto most = [&] {
      meet();
      comm.GroupBegin();
      status.Update(comm.AllToAllV(*stream, x.view(), offsets, y.view(), offsets, call));
      status.Update(comm.AllReduce(*stream, z.view(), call));
      status.Update(comm.Send(*stream, x.view(), next, call));
      status.Update(comm.GroupEnd());
      meet();
      status.Update(comm.Receive(*stream, y.view(), previous, call));
    };
    const auto round = [&] {
      meet();
      comm.GroupBegin();
      status.Update(comm.AllToAllV(*stream, x.view(), offsets, y.view(), offsets, call));
      const absl::StatusOr<Ticket> first = comm.GroupStart(*stream);
      comm.GroupBegin();
      status.Update(comm.AllReduce(*stream, z.view(), call));
      const absl::StatusOr<Ticket> second = comm.GroupStart(*stream);
      status.Update(comm.Wait(*stream, *second));
      status.Update(comm.Wait(*stream, *first));
      status.Update(comm.Send(*stream, x.view(), next, call));
      meet();
      status.Update(comm.Receive(*stream, y.view(), previous, call));
      status.Update(comm.Broadcast(*stream, y.view(), 1, call));
    };
    for (int i = 0; i < 10; ++i) most();
    for (int i = 0; i < 30; ++i) round();
    meet();
    if (comm.index() == 0) before = HeapCalls();
    for (int i = 0; i < 50; ++i) round();
    meet();
    if (comm.index() == 0) after = HeapCalls();
    meet();
    EXPECT_EQ(status, absl::OkStatus());
  });
  EXPECT_EQ(after - before, 0);
}

// A group that failed is made anew in the same world.
TEST(ThreadCommunicatorTest, GroupsAreMadeAnew) {
  ThreadWorld world(2);
  for (int generation = 0; generation < 3; ++generation) {
    std::vector<std::unique_ptr<Communicator>> comms = world.MakeGroup(GroupOf("again", 0, 2));
    const std::function<void()> meet = ThreadBody(2).make_meeting();
    OnThreads(2, [&](int rank) {
      const std::unique_ptr<Backend> backend = MakeCpuBackend({});
      const std::unique_ptr<Stream> stream = backend->MakeStream();
      TestMatrix x(DType::kF32, 1, 1);
      x.FillNumbers(rank);
      EXPECT_EQ(comms[rank]->AllReduce(*stream, x.view(), {"works", 20}), absl::OkStatus());
      EXPECT_TRUE(x.HasSums({0, 1}, 0));
      meet();
      if (rank == 1) comms[1]->Abort(absl::InternalError("on purpose"));
      EXPECT_FALSE(comms[rank]->AllReduce(*stream, x.view(), {"fails", 20}).ok());
    });
  }
}

}  // namespace
}  // namespace shoestring
