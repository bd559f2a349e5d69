// The loopback communicator: it counts what a real group counts, and touches nothing.
#include "gtest/gtest.h"
#include "kernels/arena.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/shape_backend.h"
#include "parallel/loopback_communicator.h"
#include "tests/parallel/communicator_bodies.h"
#include "tests/parallel/communicator_program.h"

namespace shoestring {
namespace {

TEST(LoopbackCommunicatorTest, CountsWhatEachMemberOfARealGroupCounts) {
  constexpr int kSize = 4;
  const std::vector<StressCall> program = RandomProgram(/*seed=*/99, kSize, 60);
  const auto run = [&program](Communicator& comm, Stream& stream) {
    for (const StressCall& call : program) {
      if (!call.Concerns(comm.index())) continue;
      StressMemory memory(call, comm.size(), comm.index());
      comm.GroupBegin();
      ASSERT_TRUE(memory.Make(comm, stream).ok());
      ASSERT_EQ(comm.GroupEnd(), absl::OkStatus());
    }
  };
  ThreadBody(kSize).run([&](Communicator& real, Backend& backend) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    run(real, *stream);
    const std::unique_ptr<Communicator> loopback = MakeLoopbackCommunicator(kSize, real.index());
    run(*loopback, *stream);
    EXPECT_EQ(loopback->body(), "loopback");
    EXPECT_GT(real.counters().Total().bytes_received, 0);
    EXPECT_EQ(loopback->counters(), real.counters());
  });
}

// Member 700 of 2,048, on tensors that have no memory.
TEST(LoopbackCommunicatorTest, WorksWithoutMemory) {
  constexpr int kSize = 2048;
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({});
  const std::unique_ptr<Backend> backend = MakeShapeBackend(*cpu);
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  Arena arena = Arena::Measuring();
  const View x = arena.Allocate(Purpose::kExchange, "x", DType::kF32, kSize, 1024);
  const View part = arena.Allocate(Purpose::kExchange, "part", DType::kF32, 1, 1024);
  const std::unique_ptr<Communicator> comm = MakeLoopbackCommunicator(kSize, 700);
  EXPECT_TRUE(comm->AllReduce(*stream, x, {"sum", 1}).ok());
  EXPECT_TRUE(comm->Receive(*stream, x, 2047, {"activations", 1}).ok());
  comm->GroupBegin();
  EXPECT_TRUE(comm->ReduceScatter(*stream, x, part, {"gradients", 1}).ok());
  const absl::StatusOr<Ticket> ticket = comm->GroupStart(*stream);
  ASSERT_TRUE(ticket.ok());
  EXPECT_TRUE(comm->Wait(*stream, *ticket).ok());
  EXPECT_EQ(comm->counters()[CallVerb::kReduceScatter].bytes_sent, 2047 * 1024 * 4);
  comm->Abort(absl::InternalError("enough"));
  EXPECT_EQ(comm->AllReduce(*stream, x, {"sum", 1}).code(), absl::StatusCode::kInternal);
}

TEST(LoopbackCommunicatorTest, LeavesOutputsAlone) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  const std::unique_ptr<Communicator> comm = MakeLoopbackCommunicator(3, 1);
  TestMatrix send(DType::kF32, 3, 2), receive(DType::kF32, 3, 2);
  ASSERT_TRUE(comm->AllToAllV(*stream, send.view(), {0, 1, 2, 3}, receive.view(), {0, 1, 2, 3}, {"x", 1}).ok());
  EXPECT_TRUE(receive.Untouched());
}

}  // namespace
}  // namespace shoestring
