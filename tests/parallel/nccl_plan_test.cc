// Which NCCL calls and copies each verb becomes.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/nccl/plan.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = NcclOp::Kind;

// Addresses that are only counted with.
std::byte* At(int64_t offset) { return reinterpret_cast<std::byte*>(0x10000 + offset); }
std::byte* StagedAt(int64_t offset) { return reinterpret_cast<std::byte*>(0x9000000 + offset); }

Call MakeCall(CallVerb verb, int peer = -1) {
  Call call;
  call.verb = verb;
  call.peer = peer;
  return call;
}

NcclPlan Plan(int index, int size, const Call& call) {
  NcclPlan plan;
  plan.ops.push_back({});  // of an earlier group
  MakeNcclPlan(index, size, {&call, 1}, StagedAt(0), plan);
  return plan;
}

TEST(NcclPlanTest, AllToAllVBeginsWithTheNextMemberAndLeavesEmptyPartsOut) {
  Call call = MakeCall(CallVerb::kAllToAllV);
  call.send = ConstView(At(0), DType::kBF16, 10, 4);  // 8 B a row
  call.receive = View(At(0x1000), DType::kBF16, 10, 4);
  call.send_offsets = {1, 3, 3, 6};     // 2, 0, 3 rows
  call.receive_offsets = {0, 4, 4, 7};  // 4, 0, 3 rows
  const NcclPlan plan = Plan(2, 3, call);
  EXPECT_THAT(plan.ops, ElementsAre(NcclOp{.kind = Kind::kSend, .from = At(8), .count = 16, .peer = 0},
                                    NcclOp{.kind = Kind::kReceive, .to = At(0x1000), .count = 32, .peer = 0},
                                    NcclOp{.kind = Kind::kSend, .from = At(24), .count = 24, .peer = 2},
                                    NcclOp{.kind = Kind::kReceive, .to = At(0x1000 + 32), .count = 24, .peer = 2}));
  EXPECT_THAT(plan.before, IsEmpty());
  EXPECT_THAT(plan.after, IsEmpty());
}

// Member i's step s sends to (i + s), whose step s receives from i: every pair finds itself, whatever the counts.
TEST(NcclPlanTest, AllToAllVPairsUp) {
  constexpr int kSize = 5;
  const auto rows = [](int from, int to) { return int64_t{(from * 7 + to * 3) % 4}; };
  for (int i = 0; i < kSize; ++i) {
    Call call = MakeCall(CallVerb::kAllToAllV);
    call.send_offsets = {0};
    call.receive_offsets = {0};
    for (int j = 0; j < kSize; ++j) {
      call.send_offsets.push_back(call.send_offsets.back() + rows(i, j));
      call.receive_offsets.push_back(call.receive_offsets.back() + rows(j, i));
    }
    call.send = ConstView(At(0), DType::kU8, call.send_offsets.back(), 1);
    call.receive = View(At(0x1000), DType::kU8, call.receive_offsets.back(), 1);
    std::vector<int64_t> sent(kSize), received(kSize);
    const NcclPlan plan = Plan(i, kSize, call);
    for (const NcclOp& op : plan.ops) {
      if (op.kind == Kind::kSend) {
        EXPECT_EQ(op.from, At(call.send_offsets[op.peer]));
      } else {
        EXPECT_EQ(op.to, At(0x1000 + call.receive_offsets[op.peer]));
      }
      (op.kind == Kind::kSend ? sent : received)[op.peer] += static_cast<int64_t>(op.count);
    }
    for (int j = 0; j < kSize; ++j) {
      EXPECT_EQ(sent[j], rows(i, j));
      EXPECT_EQ(received[j], rows(j, i));
    }
  }
}

TEST(NcclPlanTest, AllGatherVOfEqualPartsIsOneCall) {
  Call call = MakeCall(CallVerb::kAllGatherV);
  call.send = ConstView(At(0), DType::kF32, 2, 3);
  call.receive = View(At(0x1000), DType::kF32, 9, 3);
  call.receive_offsets = {1, 3, 5};
  EXPECT_THAT(Plan(1, 2, call).ops,
              ElementsAre(NcclOp{.kind = Kind::kAllGather, .from = At(0), .to = At(0x1000 + 12), .count = 24}));
}

TEST(NcclPlanTest, AllGatherVOfUnequalPartsIsABroadcastFromEach) {
  Call call = MakeCall(CallVerb::kAllGatherV);
  call.send = ConstView(At(0), DType::kF32, 2, 3);
  call.receive = View(At(0x1000), DType::kF32, 9, 3);
  call.receive_offsets = {0, 1, 1, 3};
  EXPECT_THAT(
      Plan(2, 3, call).ops,
      ElementsAre(NcclOp{.kind = Kind::kBroadcast, .from = At(0x1000), .to = At(0x1000), .count = 12, .peer = 0},
                  NcclOp{.kind = Kind::kBroadcast, .from = At(0), .to = At(0x1000 + 12), .count = 24, .peer = 2}));
}

TEST(NcclPlanTest, SumsCountElements) {
  Call scatter = MakeCall(CallVerb::kReduceScatter);
  scatter.send = ConstView(At(0), DType::kF64, 6, 2);
  scatter.receive = View(At(0x1000), DType::kF64, 3, 2);
  EXPECT_THAT(Plan(0, 2, scatter).ops,
              ElementsAre(NcclOp{
                  .kind = Kind::kReduceScatter, .from = At(0), .to = At(0x1000), .count = 6, .type = NcclType::kF64}));
  Call reduce = MakeCall(CallVerb::kAllReduce);
  reduce.receive = View(At(0), DType::kI64, 1, 5);
  reduce.send = reduce.receive;
  EXPECT_THAT(
      Plan(0, 2, reduce).ops,
      ElementsAre(NcclOp{.kind = Kind::kAllReduce, .from = At(0), .to = At(0), .count = 5, .type = NcclType::kI64}));
  reduce.receive = View(At(0), DType::kF32, 0, 5);
  EXPECT_THAT(Plan(0, 2, reduce).ops, IsEmpty());
}

TEST(NcclPlanDeathTest, NcclAddsNoBf16) {
  Call call = MakeCall(CallVerb::kAllReduce);
  call.receive = View(At(0), DType::kBF16, 1, 5);
  EXPECT_DEATH(Plan(0, 2, call), "check failed");
}

// Rows of 3 floats, 5 apart.
TEST(NcclPlanTest, ViewsWithGapsArePackedAndUnpacked) {
  Call call = MakeCall(CallVerb::kAllToAllV);
  call.send = ConstView(At(0), DType::kF32, 4, 3, 5);
  call.receive = View(At(0x1000), DType::kF32, 6, 3, 5);
  call.send_offsets = {0, 1, 3};
  call.receive_offsets = {1, 2, 5};  // rows 0 and 5 stay as they are
  EXPECT_EQ(NcclStagingBytes({&call, 1}), 512);
  const NcclPlan plan = Plan(0, 2, call);
  EXPECT_THAT(plan.before,
              ElementsAre(NcclCopy{
                  .from = At(0), .from_pitch = 20, .to = StagedAt(0), .to_pitch = 12, .row_bytes = 12, .rows = 3}));
  EXPECT_THAT(
      plan.after,
      ElementsAre(NcclCopy{
          .from = StagedAt(256), .from_pitch = 12, .to = At(0x1000 + 20), .to_pitch = 20, .row_bytes = 12, .rows = 4}));
  EXPECT_THAT(plan.ops, ElementsAre(NcclOp{.kind = Kind::kSend, .from = StagedAt(12), .count = 24, .peer = 1},
                                    NcclOp{.kind = Kind::kReceive, .to = StagedAt(256 + 12), .count = 36, .peer = 1},
                                    NcclOp{.kind = Kind::kSend, .from = StagedAt(0), .count = 12, .peer = 0},
                                    NcclOp{.kind = Kind::kReceive, .to = StagedAt(256), .count = 12, .peer = 0}));
}

TEST(NcclPlanTest, WhatIsChangedInPlaceIsPackedAndUnpackedOnce) {
  Call call = MakeCall(CallVerb::kBroadcast, 1);
  call.receive = View(At(0), DType::kU8, 3, 2, 4);
  call.send = call.receive;
  EXPECT_EQ(NcclStagingBytes({&call, 1}), 256);
  const NcclPlan plan = Plan(0, 2, call);
  EXPECT_EQ(plan.before.size(), 1u);
  EXPECT_EQ(plan.after.size(), 1u);
  EXPECT_EQ(plan.after[0].to, At(0));
  EXPECT_THAT(plan.ops, ElementsAre(NcclOp{
                            .kind = Kind::kBroadcast, .from = StagedAt(0), .to = StagedAt(0), .count = 6, .peer = 1}));
}

TEST(NcclPlanTest, GroupsKeepTheOrderOfTheirCalls) {
  Call send = MakeCall(CallVerb::kSend, 1);
  send.send = ConstView(At(0), DType::kE5M6, 2, 4);  // 12 bits each
  Call receive = MakeCall(CallVerb::kReceive, 2);
  receive.receive = View(At(64), DType::kE4M3, 2, 4);
  Call nothing = MakeCall(CallVerb::kSend, 2);
  nothing.send = ConstView(At(0), DType::kF32, 0, 4);
  const std::vector<Call> calls = {receive, nothing, send};
  NcclPlan plan;
  MakeNcclPlan(0, 3, calls, nullptr, plan);
  EXPECT_THAT(plan.ops, ElementsAre(NcclOp{.kind = Kind::kReceive, .to = At(64), .count = 8, .peer = 2},
                                    NcclOp{.kind = Kind::kSend, .from = At(0), .count = 12, .peer = 1}));
}

}  // namespace
}  // namespace shoestring
