// What is added to a program that only computes, and how such programs are rewritten for few micro-batches.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/rewrite.h"
#include "tests/parallel/pipeline_testing.h"

namespace shoestring {
namespace {

Mesh MeshOf(const char* schedule, int positions) { return *Mesh::Create(LayoutOf(schedule, positions)); }
Program Parse(const char* text) {
  const absl::StatusOr<Program> program = ParseProgram(text);
  CHECK(program.ok());
  return *program;
}

TEST(LowerTest, MessagesStandBesideTheirWork) {
  const Mesh mesh = MeshOf("one_f_one_b", 2);
  EXPECT_EQ(ToString(Lower(Parse("0: F0.0 I0.0 W0.0\n1: F1.0 I1.0 W1.0\n"), mesh)),
            "0: F0.0 SF0.0>1 RB0.0<1 I0.0 W0.0 G0\n"
            "1: RF1.0<0 F1.0 I1.0 SB1.0>0 W1.0 G1\n");
}

TEST(LowerTest, AnOverlappedPairReceivesAndSendsTwice) {
  const Mesh mesh = MeshOf("one_f_one_b", 3);
  const Program program =
      Lower(Parse("0: F0.0 F0.1 B0.0 B0.1\n1: F1.0 F1.1+B1.0 B1.1\n2: F2.0 B2.0 F2.1 B2.1\n"), mesh);
  EXPECT_EQ(ToString(program.positions[1][3]), "RF1.1<0");
  EXPECT_EQ(ToString(program.positions[1][4]), "RB1.0<2");
  EXPECT_EQ(ToString(program.positions[1][5]), "F1.1+B1.0");
  EXPECT_EQ(ToString(program.positions[1][6]), "SF1.1>2");
  EXPECT_EQ(ToString(program.positions[1][7]), "SB1.0>0");
  EXPECT_EQ(CheckProgram(program, mesh, {2}), absl::OkStatus());
}

// The reader wants the second message first: it takes both, in the order of the channel.
TEST(LowerTest, OlderMessagesAreReceivedBefore) {
  const Mesh mesh = MeshOf("one_f_one_b", 2);
  const Program program = Lower(Parse("0: F0.0 F0.1 B0.0 B0.1\n1: F1.1 F1.0 B1.0 B1.1\n"), mesh);
  EXPECT_EQ(ToString(program),
            "0: F0.0 SF0.0>1 F0.1 SF0.1>1 RB0.0<1 B0.0 RB0.1<1 B0.1 G0\n"
            "1: RF1.0<0 RF1.1<0 F1.1 F1.0 B1.0 SB1.0>0 B1.1 SB1.1>0 G1\n");
  EXPECT_EQ(CheckProgram(program, mesh, {2}), absl::OkStatus());
}

TEST(LowerTest, NothingIsSentToTheSamePosition) {
  EXPECT_EQ(ToString(Lower(Parse("0: F0.0 F1.0 B1.0 B0.0\n"), MeshOf("zb_v", 1))), "0: F0.0 F1.0 B1.0 G1 B0.0 G0\n");
}

// An order that nobody can run is lowered all the same; the checker says why it is none.
TEST(LowerTest, WhatCannotRunIsTheCheckersToSay) {
  const Mesh mesh = MeshOf("one_f_one_b", 2);
  const Program program = Lower(Parse("0: F0.0 B0.0 F0.1 B0.1\n1: F1.0 F1.1 B1.0 B1.1\n"), mesh);
  EXPECT_EQ(CheckProgram(program, mesh, {2}).message(),
            "deadlock: position 0 waits in RB0.0<1 (action 2); position 1 waits in RF1.1<0 (action 2)");
}

TEST(RewriteTest, KeepsTheFirstMicroBatchesOfEveryDirection) {
  const Program program = Parse("0: F0.0 F0.1 F0.2+B3.0' F0.0'+B3.1 F0.1+B3.2 F0.2+B3.2' I0.1' W0.2 W0.0\n");
  EXPECT_EQ(ToString(KeepFirstMicroBatches(program, 2)), "0: F0.0 F0.1 B3.0' F0.0'+B3.1 F0.1 I0.1' W0.0\n");
  EXPECT_EQ(KeepFirstMicroBatches(program, 3), program);
}

TEST(RewriteTest, WeightGradientsMoveToWhereAPositionWaits) {
  const Mesh mesh = MeshOf("one_f_one_b", 2);
  const Program program = Parse("0: F0.0 F0.1 B0.0 B0.1\n1: F1.0 B1.0 F1.1 B1.1\n");
  // Position 1 never waits, so its weight gradients come last; position 0 waits at time 4 for the second gradient.
  EXPECT_EQ(ToString(DeferWeightGradients(program, mesh, 9)),
            "0: F0.0 F0.1 I0.0 W0.0 I0.1 W0.1\n"
            "1: F1.0 I1.0 F1.1 I1.1 W1.0 W1.1\n");
  // With room for one micro-batch position 1 must finish the first before the second.
  EXPECT_EQ(ToString(Program{{DeferWeightGradients(program, mesh, 1).positions[1]}}),
            "0: F1.0 I1.0 W1.0 F1.1 I1.1 W1.1\n");
}

// A pair adds its weight gradients itself, so the older ones of its chunk come before it.
TEST(RewriteTest, AnOverlappedPairKeepsTheOrderOfSums) {
  const Mesh mesh = MeshOf("one_f_one_b", 1);
  const Program program = Parse("0: F0.0 F0.1 B0.0 F0.2+B0.1 B0.2\n");
  EXPECT_EQ(ToString(DeferWeightGradients(program, mesh, 9)), "0: F0.0 F0.1 I0.0 W0.0 F0.2+B0.1 I0.2 W0.2\n");
}

}  // namespace
}  // namespace shoestring
