// Rows to JSON and back, the tolerant reader, and the file across crashes and resumes.
#include <cmath>

#include "base/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/base/temp_dir.h"
#include "trainer/observe/metrics_log.h"
#include "trainer/observe/summary.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;

StepMetrics FullRow(int64_t step) {
  StepMetrics row;
  row.step = step;
  row.generation = 2;
  double value = 0.5;
  for (const MetricColumn& column : MetricColumns()) row.*column.value = column.is_integer ? 7e12 : value += 0.1;
  row.moe_layers = {1, 4};
  row.layer_loads = {1.25, 3.0};
  row.time.emplace();
  for (int i = 0; i < kTimeCategories; ++i) row.time->seconds[i] = 0.1 * i + 0.3;
  return row;
}

std::vector<int64_t> Steps(const MetricsFile& file) {
  std::vector<int64_t> steps;
  for (const StepMetrics& row : file.rows) steps.push_back(row.step);
  return steps;
}

StepMetrics Row(int64_t step, double loss) {
  StepMetrics row;
  row.step = step;
  row.loss = loss;
  return row;
}

TEST(StepMetricsTest, EveryColumnSurvivesTheFile) {
  const StepMetrics row = FullRow(12);
  const std::string line = ToJsonLine(row);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const absl::StatusOr<StepMetrics> read = ParseJsonLine(line);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->step, 12);
  EXPECT_EQ(read->generation, 2);
  for (const MetricColumn& column : MetricColumns()) EXPECT_EQ((*read).*column.value, row.*column.value) << column.key;
  EXPECT_EQ(read->moe_layers, row.moe_layers);
  EXPECT_EQ(read->layer_loads, row.layer_loads);
  ASSERT_TRUE(read->time.has_value());
  EXPECT_EQ(read->time->seconds, row.time->seconds);
}

TEST(StepMetricsTest, IsOneJsonObjectOfWhatIsKnown) {
  StepMetrics row = Row(3, 4.5);
  row.grad_norm = INFINITY;
  row.tokens = 4096;
  const auto object = nlohmann::json::parse(ToJsonLine(row));
  EXPECT_EQ(object, (nlohmann::json{{"step", 3}, {"generation", 0}, {"loss", 4.5}, {"tokens", 4096}}));
  EXPECT_TRUE(object["tokens"].is_number_integer());
}

TEST(StepMetricsTest, ReaderIsTolerant) {
  const MetricsFile file = ParseMetrics(
      "{\"step\":1,\"loss\":5,\"new_key\":[{}]}\n"
      "not json\n"
      "{\"loss\":5}\n"
      "{\"step\":2,\"loss\":\"five\",\"lr\":0.5}\n"
      "{\"step\":2,\"val_loss\":4}\n"
      "{\"step\":3,\"loss\":4.");
  EXPECT_THAT(Steps(file), ElementsAre(1, 2));
  EXPECT_EQ(file.skipped_lines, 2);
  EXPECT_EQ(file.rows[1].loss, std::nullopt);
  EXPECT_EQ(file.rows[1].lr, 0.5);
  EXPECT_EQ(file.rows[1].val_loss, 4);
}

TEST(StepMetricsTest, StepsThatWereTakenAgainReplaceTheFirstOnes) {
  const MetricsFile file = ParseMetrics(
      "{\"step\":1,\"loss\":9}\n{\"step\":2,\"loss\":8,\"lr\":0.5}\n{\"step\":3,\"loss\":7}\n"
      "{\"step\":2,\"generation\":1,\"loss\":6}\n");
  EXPECT_THAT(Steps(file), ElementsAre(1, 2));
  EXPECT_EQ(file.rows[1].loss, 6);
  EXPECT_EQ(file.rows[1].lr, std::nullopt);
}

TEST(StepMetricsTest, AValidationOfALaterStartIsAddedToItsStep) {
  const MetricsFile file = ParseMetrics(
      "{\"step\":1,\"loss\":9}\n{\"step\":2,\"loss\":8,\"tokens\":64,\"elapsed_s\":5}\n"
      "{\"step\":2,\"generation\":1,\"val_loss\":7,\"elapsed_s\":6}\n");
  EXPECT_THAT(Steps(file), ElementsAre(1, 2));
  EXPECT_EQ(file.rows[1].loss, 8);
  EXPECT_EQ(file.rows[1].tokens, 64);
  EXPECT_EQ(file.rows[1].val_loss, 7);
  EXPECT_EQ(file.rows[1].elapsed_s, 6);
  EXPECT_EQ(file.rows[1].generation, 1);
}

TEST(StepMetricsTest, NewestValuesAreOfTheRowsThatHaveThem) {
  EXPECT_FALSE(NewestValues(MetricsFile()).has_value());
  const std::optional<StepMetrics> newest =
      NewestValues(ParseMetrics("{\"step\":1,\"loss\":9,\"val_loss\":8}\n{\"step\":2,\"loss\":7}\n"));
  ASSERT_TRUE(newest.has_value());
  EXPECT_EQ(newest->step, 2);
  EXPECT_EQ(newest->loss, 7);
  EXPECT_EQ(newest->val_loss, 8);
}

TEST(MetricsLogTest, EachRowIsInTheFileAtOnce) {
  const TempDir dir;
  auto log = MetricsLog::Open(PosixFileSystem(), dir.File("m.jsonl"), 0);
  ASSERT_TRUE(log.ok()) << log.status();
  for (int step = 1; step <= 3; ++step) {
    ASSERT_TRUE((*log)->OnRow(Row(step, 5.0)).ok());
    EXPECT_EQ(ReadMetrics(PosixFileSystem(), dir.File("m.jsonl"))->rows.size(), step);
  }
  EXPECT_TRUE((*log)->OnEnd({}).ok());
}

TEST(MetricsLogTest, ResumeCutsLaterStepsAndATornLine) {
  const TempDir dir;
  const std::string path = dir.File("m.jsonl");
  const std::string kept = ToJsonLine(Row(1, 5)) + ToJsonLine(Row(2, 4));
  ASSERT_TRUE(WriteFile(PosixFileSystem(), path, kept + ToJsonLine(Row(3, 3)) + "{\"step\":4,\"lo").ok());
  auto log = MetricsLog::Open(PosixFileSystem(), path, 2);
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_EQ(*ReadFile(PosixFileSystem(), path), kept);
  EXPECT_THAT(Steps((*log)->TakeKept()), ElementsAre(1, 2));
  ASSERT_TRUE((*log)->OnRow(Row(3, 2.5)).ok());
  EXPECT_EQ(*ReadFile(PosixFileSystem(), path), kept + ToJsonLine(Row(3, 2.5)));
}

TEST(MetricsLogTest, ATornLineAloneIsCutToo) {
  const TempDir dir;
  const std::string path = dir.File("m.jsonl");
  ASSERT_TRUE(WriteFile(PosixFileSystem(), path, ToJsonLine(Row(1, 5)) + "{\"step\":2").ok());
  ASSERT_TRUE(MetricsLog::Open(PosixFileSystem(), path, 9).ok());
  EXPECT_EQ(*ReadFile(PosixFileSystem(), path), ToJsonLine(Row(1, 5)));
}

TEST(MetricsLogTest, AFirstStartBeginsAnew) {
  const TempDir dir;
  const std::string path = dir.File("m.jsonl");
  ASSERT_TRUE(WriteFile(PosixFileSystem(), path, ToJsonLine(Row(1, 5))).ok());
  auto log = MetricsLog::Open(PosixFileSystem(), path, 0);
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(*ReadFile(PosixFileSystem(), path), "");
  EXPECT_TRUE((*log)->TakeKept().rows.empty());
}

TEST(SummaryTest, SurvivesItsFile) {
  Summary summary;
  summary.name = "a \"name\"";
  summary.exit_reason = "failed: \xff is no text";
  summary.steps = 7;
  summary.tokens = 1e12;
  summary.final_val_loss = 3.25;
  summary.time.seconds[2] = 1.5;
  summary.time.calls[2] = 9;
  summary.loads = {{1, 2}, {{3, 4}, {5, 6}}};
  const absl::StatusOr<Summary> read = ParseSummary(ToJson(summary));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->name, summary.name);
  EXPECT_EQ(read->exit_reason, "failed: \xEF\xBF\xBD is no text");
  EXPECT_EQ(read->steps, 7);
  EXPECT_EQ(read->tokens, 1e12);
  EXPECT_EQ(read->final_val_loss, 3.25);
  EXPECT_EQ(read->final_loss, std::nullopt);
  EXPECT_EQ(read->time.seconds, summary.time.seconds);
  EXPECT_EQ(read->time.calls, summary.time.calls);
  EXPECT_EQ(read->loads.layers, summary.loads.layers);
  EXPECT_EQ(read->loads.counts, summary.loads.counts);
}

TEST(SummaryTest, DamageIsRefusedAndOddTypesAreAbsent) {
  EXPECT_EQ(ParseSummary("{\"name\":").status().code(), absl::StatusCode::kDataLoss);
  const absl::StatusOr<Summary> odd =
      ParseSummary("{\"steps\":\"x\",\"expert_loads\":{\"layers\":[1],\"counts\":[]},\"breakdown\":3}");
  ASSERT_TRUE(odd.ok());
  EXPECT_EQ(odd->steps, 0);
  EXPECT_TRUE(odd->loads.counts.empty());
}

}  // namespace
}  // namespace shoestring
