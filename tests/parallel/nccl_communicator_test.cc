// The NCCL communicator's faults over a fake of the library: members that never come, calls that hang, peers that die,
// aborts that do not end, and a group that is built anew. What works is tested by the parity suite.
#include "parallel/nccl/nccl_communicator.h"

#include <algorithm>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/parallel/fake_nccl.h"

namespace shoestring {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Streams are only names to the fake.
class FakeStream final : public Stream {};

// One member: its library, its stream, a matrix.
struct Member {
  explicit Member(FakeNcclWorld& world) : library(world, /*inline_streams=*/false) {}

  absl::Status Join(const NcclId& id, int index, int size, double init_timeout_s = 10) {
    NcclOptions options{.id = id};
    options.who.group = "expert of position 0";
    for (int i = 0; i < size; ++i) options.who.ranks.push_back(8 + i);
    options.who.index = index;
    options.init_timeout_s = init_timeout_s;
    options.finalize_timeout_s = 10;
    options.abort_timeout_s = 0.2;
    options.poll_s = 0.002;
    options.on_wedged = [this](const absl::Status& why) {
      wedged_by = why;
      ++wedged;
    };
    absl::StatusOr<std::unique_ptr<Communicator>> made = MakeNcclCommunicator(library, std::move(options));
    if (!made.ok()) return made.status();
    communicator = *std::move(made);
    return absl::OkStatus();
  }
  absl::Status AllReduce(absl::string_view name, double timeout_s) {
    return communicator->AllReduce(stream, view(), {name, timeout_s});
  }
  // What the training thread sees when it waits for its stream and goes on: the abort must have freed the stream.
  absl::Status AfterSynchronize() {
    library.Drain(stream);
    return AllReduce("the next call", 10);
  }
  View view() { return {reinterpret_cast<std::byte*>(x.data()), DType::kF32, 2, 3}; }

  FakeNccl library;
  FakeStream stream;
  std::vector<float> x = {1, 2, 3, 4, 5, 6};
  std::unique_ptr<Communicator> communicator;
  absl::Status wedged_by;
  std::atomic<int> wedged{0};
};

class NcclCommunicatorTest : public testing::Test {
 protected:
  NcclCommunicatorTest() : a_(world_), b_(world_) {}
  ~NcclCommunicatorTest() override { world_.Release(); }

  // Runs the body on both members at once.
  void OnBoth(const std::function<void(Member&, int index)>& body) {
    std::thread other([&] { body(b_, 1); });
    body(a_, 0);
    other.join();
  }
  void JoinBoth() {
    const NcclId id = world_.MakeId();
    OnBoth([&](Member& member, int index) { ASSERT_TRUE(member.Join(id, index, 2).ok()); });
  }
  void LeaveBoth() {
    OnBoth([](Member& member, int) { member.communicator.reset(); });
  }

  FakeNcclWorld world_;
  Member a_, b_;
};

TEST_F(NcclCommunicatorTest, WorkIsEnqueuedAndSeenToComplete) {
  JoinBoth();
  OnBoth([](Member& member, int) {
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(member.AllReduce("sum", 10).ok());  // more than may be under way at once
    member.library.Drain(member.stream);
  });
  EXPECT_EQ(a_.x, b_.x);
  EXPECT_EQ(a_.x[1], 2 * a_.x[0]);
  LeaveBoth();
  EXPECT_EQ(a_.library.aborts() + b_.library.aborts(), 0);
}

TEST_F(NcclCommunicatorTest, AMemberThatNeverComesIsAnErrorOfJoining) {
  const absl::Status status = a_.Join(world_.MakeId(), 0, 2, /*init_timeout_s=*/0.05);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("rank 8, member 0 of 2 of group 'expert of position 0'"), HasSubstr("init")));
  EXPECT_EQ(a_.library.aborts(), 1);
}

TEST_F(NcclCommunicatorTest, ACallThatThePeerDoesNotMakeIsAbortedAtItsDeadline) {
  JoinBoth();
  ASSERT_TRUE(a_.AllReduce("gradients of step 7", 0.05).ok());  // enqueued: the host goes on
  const absl::Status status = a_.AfterSynchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("rank 8, member 0 of 2"), HasSubstr("all_reduce 'gradients of step 7' (call 1)"),
                    HasSubstr("not complete after 0.05 s")));
  EXPECT_EQ(a_.AllReduce("later", 10), status);
  EXPECT_EQ(a_.library.aborts(), 1);
  b_.library.faults().state = NcclResult::kRemoteError;  // what NCCL tells the other side
  while (b_.AllReduce("b goes on", 0.05).ok()) {
  }
}

TEST_F(NcclCommunicatorTest, APeerThatDiesIsUnavailable) {
  JoinBoth();
  ASSERT_TRUE(a_.AllReduce("gradients", 60).ok());
  a_.library.faults().state = NcclResult::kRemoteError;
  const absl::Status status = a_.AfterSynchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("'gradients'"), HasSubstr("a peer failed or is gone"), HasSubstr("the fake says so")));
  EXPECT_EQ(a_.library.aborts(), 1);
  (void)b_.communicator->Abort(absl::UnavailableError("told by the launcher"));
}

TEST_F(NcclCommunicatorTest, AGroupThatIsNeverEnqueuedEndsAtTheDeadline) {
  JoinBoth();
  a_.library.faults().hang_in_issue = true;
  const absl::Status status = a_.AllReduce("gradients", 0.05);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not even enqueued"));
  EXPECT_EQ(a_.library.aborts(), 1);
  (void)b_.communicator->Abort(absl::UnavailableError("told by the launcher"));
}

TEST_F(NcclCommunicatorTest, AnAsynchronousGroupRunsBesideTheStreamAndIsWaitedForByIt) {
  JoinBoth();
  OnBoth([](Member& member, int index) {
    Communicator& communicator = *member.communicator;
    communicator.GroupBegin();
    ASSERT_TRUE(communicator.AllReduce(member.stream, member.view(), {"beside", 10}).ok());
    absl::StatusOr<Ticket> ticket = communicator.GroupStart(member.stream);
    ASSERT_TRUE(ticket.ok());
    std::vector<float> y = {static_cast<float>(index), 7};
    const View view(reinterpret_cast<std::byte*>(y.data()), DType::kF32, 1, 2);
    ASSERT_TRUE(communicator.AllReduce(member.stream, view, {"meanwhile", 10}).ok());
    ASSERT_TRUE(communicator.Wait(member.stream, *ticket).ok());
    member.library.Drain(member.stream);
    EXPECT_EQ(member.x, (std::vector<float>{2, 4, 6, 8, 10, 12}));
    EXPECT_EQ(y, (std::vector<float>{1, 14}));
  });
  LeaveBoth();
}

TEST_F(NcclCommunicatorTest, AnAsynchronousGroupHasItsDeadlineToo) {
  JoinBoth();
  Communicator& communicator = *a_.communicator;
  communicator.GroupBegin();
  ASSERT_TRUE(communicator.Receive(a_.stream, a_.view(), 1, {"dispatch layer 3", 0.05}).ok());
  absl::StatusOr<Ticket> ticket = communicator.GroupStart(a_.stream);
  ASSERT_TRUE(ticket.ok());
  ASSERT_TRUE(communicator.Wait(a_.stream, *ticket).ok());  // the stream waits, not the host
  const absl::Status status = a_.AfterSynchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("receive 'dispatch layer 3' (call 1) with rank 9"));
  (void)b_.communicator->Abort(absl::UnavailableError("told by the launcher"));
}

TEST_F(NcclCommunicatorTest, AnAbortThatDoesNotEndIsReportedAndLeftBehind) {
  JoinBoth();
  a_.library.faults().hang_in_abort = true;
  ASSERT_TRUE(a_.AllReduce("gradients", 0.05).ok());
  while (a_.wedged == 0) std::this_thread::yield();
  EXPECT_EQ(a_.wedged_by.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(a_.AllReduce("later", 10), a_.wedged_by);
  (void)b_.communicator->Abort(absl::UnavailableError("told by the launcher"));
  a_.communicator.reset();  // waits for nothing
  world_.Release();
  a_.library.Drain(a_.stream);
}

TEST_F(NcclCommunicatorTest, AThreadThatDoesNotComeBackFromNcclIsReported) {
  JoinBoth();
  a_.library.faults().hang_in_call = true;
  std::thread stuck([this] { EXPECT_FALSE(a_.AllReduce("gradients", 0.05).ok()); });
  while (a_.wedged == 0) std::this_thread::yield();
  EXPECT_THAT(std::string(a_.wedged_by.message()), HasSubstr("a thread does not come back from NCCL"));
  EXPECT_EQ(a_.library.aborts(), 0);  // an abort beside a thread inside NCCL may hang for ever
  world_.Release();
  stuck.join();
  (void)b_.communicator->Abort(absl::UnavailableError("told by the launcher"));
}

TEST_F(NcclCommunicatorTest, ADeviceThatFailsIsAnInternalError) {
  JoinBoth();
  a_.library.faults().bad_device = true;
  const absl::Status status = a_.AllReduce("gradients", 10);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the device failed"));
  (void)b_.communicator->Abort(absl::UnavailableError("told by the launcher"));
}

TEST_F(NcclCommunicatorTest, AfterAFailureTheGroupIsBuiltAnew) {
  JoinBoth();
  ASSERT_TRUE(a_.AllReduce("gradients", 0.02).ok());
  EXPECT_FALSE(a_.AfterSynchronize().ok());
  b_.communicator->Abort(absl::UnavailableError("told by the launcher"));
  EXPECT_EQ(b_.AllReduce("later", 10), absl::UnavailableError("told by the launcher"));
  LeaveBoth();
  for (Member* member : {&a_, &b_}) member->x = {1, 1, 1, 1, 1, 1};
  JoinBoth();
  OnBoth([](Member& member, int) {
    ASSERT_TRUE(member.AllReduce("gradients", 10).ok());
    member.library.Drain(member.stream);
    EXPECT_EQ(member.x[5], 2);
  });
  LeaveBoth();
  EXPECT_EQ(a_.library.aborts() + b_.library.aborts(), 2);
}

}  // namespace
}  // namespace shoestring
