// What is printed on a terminal and into a log, and how figures are said to people.
#include "trainer/observe/progress_line.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

StepMetrics Row(int64_t step) {
  StepMetrics row;
  row.step = step;
  row.loss = 4.25;
  row.lr = 3e-3;
  row.tokens_per_sec = 9044;
  row.gemm_peak_share = 0.48;
  row.eta_s = 3725;
  return row;
}

RunFacts Facts() {
  RunFacts facts;
  facts.total_steps = 100;
  facts.log_interval_steps = 10;
  return facts;
}

class ProgressLineTest : public testing::Test {
 protected:
  ProgressLine Make(const ProgressStyle& style) {
    return ProgressLine(Facts(), style, clock_,
                        [this](absl::string_view text) { out_.append(text.data(), text.size()); });
  }
  ManualClock clock_;
  std::string out_;
};

TEST_F(ProgressLineTest, ALogGetsPlainLinesAtItsInterval) {
  ProgressLine line = Make({.is_terminal = false});
  for (int step = 1; step <= 10; ++step) {
    clock_.Advance(1'000'000'000);
    ASSERT_TRUE(line.OnRow(Row(step)).ok());
  }
  EXPECT_EQ(out_,
            "step: 10/100  loss: 4.2500  lr: 0.003  tokens_per_sec: 9044  peak: 48.0%  elapsed: 10.0 s  "
            "left: 1:02:05\n");
}

TEST_F(ProgressLineTest, AShortStepHasDigits) {
  StepMetrics row = Row(10);
  row.step_time_s = 0.00041234;
  EXPECT_THAT(ProgressLine::LogLine(row, 100, 1), HasSubstr("step_time_s: 0.000412  "));
  row.step_time_s = 12.34567;
  EXPECT_THAT(ProgressLine::LogLine(row, 100, 1), HasSubstr("step_time_s: 12.346  "));
}

TEST_F(ProgressLineTest, ALogShowsEveryValidation) {
  ProgressLine line = Make({.is_terminal = false});
  StepMetrics row = Row(7);
  row.val_loss = 3.5;
  row.val_bits_per_byte = 1.25;
  ASSERT_TRUE(line.OnRow(row).ok());
  EXPECT_THAT(out_, HasSubstr("  val_loss: 3.5000  val_bits_per_byte: 1.2500  "));
}

TEST_F(ProgressLineTest, ATerminalLineIsWrittenOverAndFits) {
  ProgressLine line = Make({.is_terminal = true, .columns = 60});
  ASSERT_TRUE(line.OnRow(Row(50)).ok());
  EXPECT_THAT(out_, StartsWith("\r\x1b[K[########........] 50/100  loss 4.2500"));
  EXPECT_THAT(out_, Not(HasSubstr("\n")));
  EXPECT_LE(out_.size(), 59 + 4);
  ASSERT_TRUE(line.OnEnd({"finished", false}).ok());
  EXPECT_THAT(out_, HasSubstr("\nend: finished"));
}

TEST_F(ProgressLineTest, ValidationsStayOnATerminal) {
  ProgressLine line = Make({.is_terminal = true, .columns = 120});
  StepMetrics row = Row(50);
  row.val_loss = 3.5;
  row.val_bits_per_byte = 1.25;
  ASSERT_TRUE(line.OnRow(row).ok());
  EXPECT_THAT(out_, HasSubstr("step 50  validation 3.5000 nats/token, 1.2500 bits/byte\n"));
  out_.clear();
  ASSERT_TRUE(line.OnRow(Row(51)).ok());
  EXPECT_THAT(out_, HasSubstr("  val 3.5000"));
}

TEST_F(ProgressLineTest, ColourIsAskedFor) {
  ProgressLine plain = Make({.is_terminal = true, .color = false});
  ASSERT_TRUE(plain.OnRow(Row(1)).ok());
  EXPECT_THAT(out_, Not(HasSubstr("\x1b[2m")));
  out_.clear();
  ProgressLine colored = Make({.is_terminal = true, .color = true});
  ASSERT_TRUE(colored.OnRow(Row(1)).ok());
  EXPECT_THAT(out_, HasSubstr("\x1b[2m[................]\x1b[0m 1/100"));
}

TEST(HumanTest, Counts) {
  EXPECT_EQ(HumanCount(0), "0");
  EXPECT_EQ(HumanCount(999), "999");
  EXPECT_EQ(HumanCount(1234567), "1.235 M");
  EXPECT_EQ(HumanCount(671026419200.0), "671.0 B");
  EXPECT_EQ(HumanCount(14.8e12), "14.80 T");
}

TEST(HumanTest, Seconds) {
  EXPECT_EQ(HumanSeconds(7.24), "7.2 s");
  EXPECT_EQ(HumanSeconds(59.96), "1:00");
  EXPECT_EQ(HumanSeconds(245), "4:05");
  EXPECT_EQ(HumanSeconds(3723), "1:02:03");
  EXPECT_EQ(HumanSeconds(56 * 86400 + 7200), "56 d 2 h");
  EXPECT_EQ(HumanSeconds(-1), "?");
}

TEST(StartBlockTest, SaysWhatWillRun) {
  RunFacts facts = Facts();
  facts.name = "tiny";
  facts.resumed_step = 40;
  facts.generation = 2;
  facts.instruction_set = "avx2";
  facts.peak_gflops_per_rank = 123.4;
  facts.memory_table = "arena 5 MiB\nweights 3 MiB\n";
  const std::string block = StartBlock(facts);
  EXPECT_THAT(block, StartsWith("run        tiny\n"));
  EXPECT_THAT(block, HasSubstr("CPU avx2, 1 rank of 1 thread\n"));
  EXPECT_THAT(block, HasSubstr("123.4 GFLOP/s"));
  EXPECT_THAT(block, HasSubstr("100; resumes at 40, generation 2\n"));
  EXPECT_THAT(block, HasSubstr("memory\n  arena 5 MiB\n  weights 3 MiB\n"));
  EXPECT_THAT(block, Not(HasSubstr("data\n")));
  EXPECT_THAT(block, Not(HasSubstr("FAST")));
  facts.fast_sums = true;
  EXPECT_THAT(StartBlock(facts), HasSubstr("\nsums       FAST: other layouts give other bits\n"));
}

}  // namespace
}  // namespace shoestring
