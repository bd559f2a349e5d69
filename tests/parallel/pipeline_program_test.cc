// The text form of programs: golden texts, parse and print as inverses, errors.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/program.h"
#include "tests/parallel/pipeline_testing.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

Program OneFOneB(int positions, int64_t micro_batches) {
  return PipelineCase{"one_f_one_b", positions, micro_batches}.program();
}

TEST(BuildOneFOneBTest, OnePosition) { EXPECT_EQ(ToString(OneFOneB(1, 3)), "0: F0.0 B0.0 F0.1 B0.1 F0.2 B0.2 G0\n"); }

TEST(BuildOneFOneBTest, TwoPositions) {
  EXPECT_EQ(ToString(OneFOneB(2, 3)),
            "0: F0.0 SF0.0>1 F0.1 SF0.1>1 RB0.0<1 B0.0 F0.2 SF0.2>1 RB0.1<1 B0.1 RB0.2<1 B0.2 G0\n"
            "1: RF1.0<0 F1.0 B1.0 SB1.0>0 RF1.1<0 F1.1 B1.1 SB1.1>0 RF1.2<0 F1.2 B1.2 SB1.2>0 G1\n");
}

TEST(BuildOneFOneBTest, FewerMicroBatchesThanPositions) {
  EXPECT_EQ(ToString(OneFOneB(3, 1)),
            "0: F0.0 SF0.0>1 RB0.0<1 B0.0 G0\n"
            "1: RF1.0<0 F1.0 SF1.0>2 RB1.0<2 B1.0 SB1.0>0 G1\n"
            "2: RF2.0<1 F2.0 B2.0 SB2.0>1 G2\n");
}

TEST(ProgramTextTest, ParseAndPrintAreInverses) {
  const std::string text =
      "0: F0.0 SF0.0>1 F0.3'+B2.1 I0.2 W0.2 RB0.0<1 B0.0 G0\n"
      "1: RF1.0<0 SB1.10>0\n"
      "2:\n";
  const absl::StatusOr<Program> program = ParseProgram(text);
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(ToString(*program), text);
  const Action& overlapped = program->positions[0][2];
  EXPECT_EQ(overlapped.kind, ActionKind::kOverlapped);
  EXPECT_EQ(overlapped.work, (Work{StageId(0), 3, Direction(1)}));
  EXPECT_EQ(overlapped.paired, (Work{StageId(2), 1, Direction(0)}));
  for (int p = 1; p <= 5; ++p) {
    for (int m = 1; m <= 7; ++m) {
      const Program built = OneFOneB(p, m);
      const absl::StatusOr<Program> parsed = ParseProgram(ToString(built));
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(*parsed, built);
    }
  }
}

TEST(ProgramTextTest, CommentsAndBlanksAreSkipped) {
  const absl::StatusOr<Program> program = ParseProgram("# two\n\n 0:  F0.0\tB0.0 # first\n1: G1");
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(ToString(*program), "0: F0.0 B0.0\n1: G1\n");
}

TEST(ProgramTextTest, ErrorsNameLineAndWord) {
  EXPECT_THAT(ParseProgram("0: F0.0\n1: X1.0\n").status().message(), HasSubstr("line 2: no action: 'X1.0'"));
  EXPECT_THAT(ParseProgram("1: F0.0\n").status().message(), HasSubstr("line 1: expected '0:'"));
  for (const char* word : {"F", "F0", "F0.", "F0.x", "F00.1", "F0.1''", "SF0.1", "SF0.1<2", "RF0.1>2", "F0.1+F1.1", "G",
                           "G0.1", "F0.9999999999", "B0.1+B1.1", "F-1.0", "F0.1 "}) {
    EXPECT_FALSE(ParseAction(word).ok()) << word;
  }
}

}  // namespace
}  // namespace shoestring
