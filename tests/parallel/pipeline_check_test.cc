// The checker accepts what is right and names what is wrong; slots are as many as micro-batches live.
#include <algorithm>

#include "base/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/check.h"
#include "tests/parallel/pipeline_testing.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

Mesh Line(int positions) { return *Mesh::Create(LayoutOf("one_f_one_b", positions)); }
Program OneFOneB(int positions, int64_t micro_batches) {
  return PipelineCase{"one_f_one_b", positions, micro_batches}.program();
}

absl::Status Check(const std::string& text, const Mesh& mesh, int64_t micro_batches) {
  const absl::StatusOr<Program> program = ParseProgram(text);
  CHECK(program.ok());
  return CheckProgram(*program, mesh, std::vector<int64_t>(mesh.directions(), micro_batches));
}

TEST(CheckProgramTest, OneFOneBIsRightForEverySize) {
  for (int p = 1; p <= 6; ++p) {
    for (int64_t m = 1; m <= 9; ++m) {
      const Program program = OneFOneB(p, m);
      EXPECT_EQ(CheckProgram(program, Line(p), {m}), absl::OkStatus()) << ToString(program);
      for (int i = 0; i < p; ++i) {
        EXPECT_EQ(PlanSlots(program.positions[i]).live.at(StageId(i)), std::min<int64_t>(p - i, m));
      }
    }
  }
}

// Taking any one action out of a right program must be noticed.
TEST(CheckProgramTest, EveryMissingActionIsNoticed) {
  for (int p = 1; p <= 3; ++p) {
    const Program program = OneFOneB(p, 3);
    for (int i = 0; i < p; ++i) {
      for (size_t a = 0; a < program.positions[i].size(); ++a) {
        Program broken = program;
        broken.positions[i].erase(broken.positions[i].begin() + a);
        EXPECT_FALSE(CheckProgram(broken, Line(p), {3}).ok()) << ToString(broken);
      }
    }
  }
}

// So must doing one twice.
TEST(CheckProgramTest, EveryRepeatedActionIsNoticed) {
  for (int p = 1; p <= 3; ++p) {
    const Program program = OneFOneB(p, 2);
    for (int i = 0; i < p; ++i) {
      for (size_t a = 0; a < program.positions[i].size(); ++a) {
        Program broken = program;
        broken.positions[i].insert(broken.positions[i].begin() + a, program.positions[i][a]);
        EXPECT_FALSE(CheckProgram(broken, Line(p), {2}).ok()) << ToString(broken);
      }
    }
  }
}

struct WrongCase {
  std::string text;
  int positions;
  std::string message;
};

TEST(CheckProgramTest, SaysWhatIsWrong) {
  const WrongCase cases[] = {
      {"0: F0.0 G0\n", 1, "position 0: B0.0 is missing"},
      {"0: F0.0 I0.0 G0\n", 1, "position 0: W0.0 is missing"},
      {"0: F0.0 W0.0 G0\n", 1, "action 1, W0.0: its input gradients are not done"},
      {"0: B0.0 F0.0 G0\n", 1, "action 0, B0.0: its forward is not done"},
      {"0: F0.0 G0 B0.0\n", 1, "its stage is reduced already"},
      {"0: F0.0 B0.0\n", 1, "G0 is missing"},
      {"0: F0.0 F0.0 B0.0 G0\n", 1, "the forward is done twice"},
      {"0: F0.1\n", 1, "there are 1 micro-batches"},
      {"0: F1.0\n", 1, "there are 1 stages"},
      {"0: F0.0'\n", 1, "one direction"},
      {"0: SF0.0>1\n1:\n", 2, "it is not made yet"},
      {"0: F1.0\n1:\n", 2, "stage 1 is at position 1"},
      {"0: F0.0 SF0.0>0\n1:\n", 2, "its reader is at position 1"},
      {"0: F0.0+B0.0 G0\n", 1, "its forward is not done"},
      {"0: F0.0 SF0.0>1 B0.0\n1: RF1.0<0\n", 2, "its output gradient is not there"},
      {"0: F0.0\n1: F1.0\n", 2, "its input is not there"},
      {"0: F0.0\n", 2, "the program has 1 positions, the mesh 2"},
  };
  for (const WrongCase& c : cases) {
    const absl::Status status = Check(c.text, Line(c.positions), 1);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << c.text;
    EXPECT_THAT(status.message(), HasSubstr(c.message)) << c.text;
  }
}

TEST(CheckProgramTest, MessagesKeepTheirOrder) {
  EXPECT_THAT(Check("0: F0.0 F0.1 SF0.1>1 SF0.0>1\n1: RF1.0<0\n", Line(2), 2).message(),
              HasSubstr("the next message from there is SF0.1>1"));
}

TEST(CheckProgramTest, DeadlockNamesEveryWaitingPosition) {
  const absl::Status status = Check("0: RB0.0<1 F0.0 SF0.0>1\n1: RF1.0<0 F1.0 B1.0 SB1.0>0 G1\n", Line(2), 1);
  EXPECT_EQ(status.message(),
            "deadlock: position 0 waits in RB0.0<1 (action 0); position 1 waits in RF1.0<0 (action 0)");
}

TEST(CheckProgramTest, OverlappedPairsAndDeferredWeightGradients) {
  EXPECT_EQ(Check("0: F0.0 F0.1+B0.0 F0.2 I0.1 I0.2 W0.1 W0.2 G0\n", Line(1), 3), absl::OkStatus());
}

// Two directions over two positions, without overlap.
TEST(CheckProgramTest, TwoDirections) {
  const std::string text =
      "0: F0.0 SF0.0>1 RF1.0'<1 F1.0' B1.0' SB1.0'>1 RB0.0<1 B0.0 G0 G1\n"
      "1: F0.0' SF0.0'>0 RF1.0<0 F1.0 B1.0 SB1.0>0 RB0.0'<0 B0.0' G0 G1\n";
  EXPECT_EQ(Check(text, *Mesh::Create(LayoutOf("dualpipe", 2)), 1), absl::OkStatus());
}

TEST(PlanSlotsTest, ASlotLivesUntilItsWeightGradient) {
  const auto program = ParseProgram("0: F0.0 I0.0 F0.1 W0.0 F0.2 I0.1 W0.1 I0.2 W0.2 G0\n");
  const SlotPlan plan = PlanSlots(program->positions[0]);
  EXPECT_EQ(plan.live.at(StageId(0)), 2);
  std::vector<int> slots;
  for (const SlotPlan::Slots& s : plan.actions) slots.push_back(s.work);
  EXPECT_EQ(slots, (std::vector<int>{0, 0, 1, 0, 0, 1, 1, 0, 0, -1}));
}

// Two stages at one position: the slot of stage 1 holds the input gradient until stage 0 has read it.
TEST(PlanSlotsTest, ANeighbourAtTheSamePositionKeepsTheSlot) {
  const auto program = ParseProgram("0: F0.0 F1.0 B1.0 F0.1 F1.1 B0.0 B1.1 B0.1\n");
  const SlotPlan plan = PlanSlots(program->positions[0]);
  EXPECT_EQ(plan.live.at(StageId(0)), 2);
  EXPECT_EQ(plan.live.at(StageId(1)), 2);
  EXPECT_EQ(plan.actions[4].work, 1);
  EXPECT_EQ(plan.actions[5].work_source, 0);
  EXPECT_EQ(plan.actions[1].work_source, 0);
}

}  // namespace
}  // namespace shoestring
