// The bodies of the communicator, each through the parity, stress and failure suites; and what is checked for all.
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "parallel/single_communicator.h"
#include "tests/parallel/communicator_bodies.h"
#include "tests/parallel/communicator_failure_suite.h"
#include "tests/parallel/communicator_stress_suite.h"
#include "tests/parallel/communicator_suite.h"

namespace shoestring {
namespace {

std::string NameOf(const testing::TestParamInfo<CommunicatorBody>& info) {
  return info.param.name + std::to_string(info.param.size);
}

INSTANTIATE_TEST_SUITE_P(Bodies, CommunicatorSuite,
                         testing::Values(SingleBody(), ThreadBody(1), ThreadBody(2), ThreadBody(3), ThreadBody(4),
                                         ThreadBody(8), StagedBody(1), StagedBody(4)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Bodies, CommunicatorStressSuite,
                         testing::Values(SingleBody(), ThreadBody(1), ThreadBody(2), ThreadBody(3), ThreadBody(4),
                                         ThreadBody(8), StagedBody(1), StagedBody(4)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Bodies, CommunicatorFailureSuite,
                         testing::Values(ThreadBody(2), ThreadBody(3), ThreadBody(4), ThreadBody(8), StagedBody(2),
                                         StagedBody(4)),
                         NameOf);

// What one member can see is wrong by itself.
class CommunicatorDeathTest : public testing::Test {
 protected:
  View x() { return {reinterpret_cast<std::byte*>(values_), DType::kF32, 2, 2}; }

  float values_[4] = {};
  const std::unique_ptr<Backend> backend_ = MakeCpuBackend({});
  const std::unique_ptr<Communicator> comm_ = MakeSingleCommunicator(*backend_);
  const std::unique_ptr<Stream> stream_ = backend_->MakeStream();
  const CallOptions call_ = {"test", 1};
};

TEST_F(CommunicatorDeathTest, SendsToItselfMustPairUp) {
  EXPECT_DEATH((void)comm_->Send(*stream_, x(), 0, call_), "peer != index_");
  comm_->GroupBegin();
  ASSERT_TRUE(comm_->Send(*stream_, x(), 0, call_).ok());
  EXPECT_DEATH((void)comm_->GroupEnd(), "receive < calls.size");
  ASSERT_TRUE(comm_->Receive(*stream_, x().Rows(0, 1), 0, call_).ok());
  EXPECT_DEATH((void)comm_->GroupEnd(), "rows");
}

TEST_F(CommunicatorDeathTest, ArgumentsMustFit) {
  EXPECT_DEATH((void)comm_->AllToAllV(*stream_, x(), {0, 3}, x(), {0, 3}, call_), "offsets.back\\(\\) <= rows");
  EXPECT_DEATH((void)comm_->AllToAllV(*stream_, x(), {0, 1}, x(), {0, 2}, call_), "send_offsets");
  EXPECT_DEATH((void)comm_->AllToAllV(*stream_, x(), {1, 0}, x(), {1, 0}, call_), "offsets");
  EXPECT_DEATH((void)comm_->AllGatherV(*stream_, x(), x(), {0, 1}, call_), "send.rows");
  EXPECT_DEATH((void)comm_->AllGatherV(*stream_, x(), x().Columns(0, 1), {0, 2}, call_), "a.cols == b.cols");
  EXPECT_DEATH((void)comm_->Broadcast(*stream_, x(), 1, call_), "root");
  EXPECT_DEATH((void)comm_->AllReduce(*stream_, {x().data, DType::kBF16, 1, 1}, call_), "dtype");
}

TEST_F(CommunicatorDeathTest, GroupsAndTicketsAreUsedInOrder) {
  EXPECT_DEATH((void)comm_->GroupEnd(), "collecting_");
  EXPECT_DEATH((void)comm_->Wait(*stream_, Ticket{7}), "found");
  const std::unique_ptr<Stream> other = backend_->MakeStream();
  comm_->GroupBegin();
  EXPECT_DEATH(comm_->GroupBegin(), "collecting_");
  ASSERT_TRUE(comm_->AllReduce(*stream_, x(), call_).ok());
  EXPECT_DEATH((void)comm_->AllReduce(*other, x(), call_), "collected_stream_");
  const absl::StatusOr<Ticket> ticket = comm_->GroupStart(*stream_);
  ASSERT_TRUE(ticket.ok());
  ASSERT_TRUE(comm_->Wait(*stream_, *ticket).ok());
  EXPECT_DEATH((void)comm_->Wait(*stream_, *ticket), "found");
}

}  // namespace
}  // namespace shoestring
