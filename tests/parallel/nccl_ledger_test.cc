// When an NCCL call is given up, and what is said of it.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/nccl/ledger.h"

namespace shoestring {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

NcclLedger MakeLedger(int slots = 8) {
  return NcclLedger({.group = "expert of position 0", .ranks = {4, 5, 6, 7}, .index = 2}, slots);
}

NcclCall& Enqueued(NcclLedger& ledger, absl::string_view name, double now_s, double timeout_s, int event) {
  NcclCall& call = ledger.Begin("all_to_all_v", name, now_s, timeout_s);
  call.all_members = true;
  call.event = event;
  return call;
}

TEST(NcclLedgerTest, DeadlinesCountFromTheBeginningOfTheCall) {
  NcclLedger ledger = MakeLedger();
  EXPECT_FALSE(ledger.NextDeadline());
  Enqueued(ledger, "dispatch layer 3", 100, 10, 0);
  Enqueued(ledger, "combine layer 3", 101, 5, 1);
  EXPECT_EQ(ledger.NextDeadline(), 106);
  EXPECT_FALSE(ledger.Judge(105.9, NcclResult::kSuccess, ""));
  EXPECT_FALSE(ledger.Judge(105.9, NcclResult::kInProgress, ""));
  const std::optional<absl::Status> verdict = ledger.Judge(106, NcclResult::kSuccess, "");
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(verdict->message()),
              AllOf(HasSubstr("rank 6, member 2 of 4 of group 'expert of position 0'"),
                    HasSubstr("all_to_all_v 'combine layer 3' (call 1) with all members"),
                    HasSubstr("not complete after 5 s"), HasSubstr("1 other calls under way")));
}

TEST(NcclLedgerTest, TheDeadlineThatPassedFirstIsNamed) {
  NcclLedger ledger = MakeLedger();
  Enqueued(ledger, "late", 100, 30, 0);
  Enqueued(ledger, "later", 100, 40, 1);
  EXPECT_THAT(std::string(ledger.Judge(1000, NcclResult::kSuccess, "")->message()), HasSubstr("'late' (call 0)"));
}

TEST(NcclLedgerTest, CompletedCallsAreForgottenInAnyOrder) {
  NcclLedger ledger = MakeLedger();
  Enqueued(ledger, "a", 0, 10, 7);
  Enqueued(ledger, "b", 0, 10, 3);
  ledger.Begin("send", "not enqueued yet", 0, 10);
  EXPECT_EQ(ledger.Reap([](int event) { return event == 3; }), 1);
  EXPECT_EQ(ledger.under_way(), 2);
  EXPECT_EQ(ledger.Reap([](int) { return true; }), 1);
  EXPECT_THAT(std::string(ledger.Judge(11, NcclResult::kSuccess, "")->message()),
              AllOf(HasSubstr("send 'not enqueued yet' (call 2)"), HasSubstr("not even enqueued")));
  ledger.DropNewest();
  EXPECT_FALSE(ledger.Judge(11, NcclResult::kSuccess, ""));
  EXPECT_EQ(ledger.calls(), 3);
}

TEST(NcclLedgerTest, PeersAreNamedByTheirRanks) {
  NcclLedger ledger = MakeLedger();
  NcclCall& call = ledger.Begin("send", "stage 1 to 2", 0, 10);
  call.AddPeer(3);
  call.AddPeer(0);
  call.AddPeer(3);
  EXPECT_THAT(std::string(ledger.Judge(11, NcclResult::kSuccess, "")->message()), HasSubstr("with ranks 7, 4: not"));
}

TEST(NcclLedgerTest, ManyPeersAreCutShort) {
  NcclWho who;
  who.group = "g";
  for (int rank = 0; rank < 40; ++rank) who.ranks.push_back(rank);
  NcclLedger ledger(who, 4);
  NcclCall& call = ledger.Begin("all_to_all_v", "x", 0, 10);
  for (int member = 0; member < 40; ++member) call.AddPeer(member);
  EXPECT_THAT(std::string(ledger.Judge(11, NcclResult::kSuccess, "")->message()),
              HasSubstr("with ranks 0, 1, 2, 3, 4, 5, 6, 7 and more"));
}

TEST(NcclLedgerTest, WhatNcclReportsIsAboutTheOldestCall) {
  NcclLedger ledger = MakeLedger();
  EXPECT_THAT(std::string(ledger.Judge(0, NcclResult::kRemoteError, "")->message()), HasSubstr("a peer failed"));
  Enqueued(ledger, "first", 0, 10, 0);
  Enqueued(ledger, "second", 0, 10, 1);
  const absl::Status verdict = *ledger.Judge(0, NcclResult::kRemoteError, "socket closed");
  EXPECT_EQ(verdict.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(verdict.message()), AllOf(HasSubstr("'first'"), HasSubstr(": socket closed")));
  EXPECT_EQ(ledger.Judge(0, NcclResult::kInternalError, "")->code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ledger.Judge(0, NcclResult::kCudaError, "")->code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ledger.Judge(0, NcclResult::kSystemError, "")->code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(ledger.Failed(NcclResult::kInvalidUsage, "why").message()),
              AllOf(HasSubstr("'second'"), HasSubstr("invalid use of NCCL: why")));
}

TEST(NcclLedgerTest, LongNamesAreCut) {
  NcclLedger ledger = MakeLedger();
  const std::string name(200, 'x');
  Enqueued(ledger, name, 0, 10, 0);
  EXPECT_THAT(std::string(ledger.Judge(11, NcclResult::kSuccess, "")->message()),
              AllOf(HasSubstr("'" + std::string(63, 'x') + "'"), Not(HasSubstr(std::string(64, 'x')))));
}

TEST(NcclLedgerDeathTest, RoomIsFixed) {
  NcclLedger ledger = MakeLedger(2);
  ledger.Begin("send", "a", 0, 1);
  ledger.Begin("send", "b", 0, 1);
  EXPECT_DEATH(ledger.Begin("send", "c", 0, 1), "check failed");
}

}  // namespace
}  // namespace shoestring
