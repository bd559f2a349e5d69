// Pages by their parts: well-formed, complete, escaped, and made again from a run directory.
#include "trainer/observe/report.h"

#include "base/fault_file_system.h"
#include "configs/print.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/observe/markup.h"
#include "trainer/observe/compare.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

MetricsFile Metrics(int steps, int layers) {
  MetricsFile metrics;
  for (int i = 1; i <= steps; ++i) {
    StepMetrics row;
    row.step = i;
    row.loss = 8.0 - 4.0 * i / steps;
    row.lr = 1e-3;
    row.grad_norm = 1.0 + 1.0 / i;
    row.tokens = 64;
    row.consumed_tokens = 64.0 * i;
    row.step_time_s = 0.5;
    row.tokens_per_sec = 128;
    row.elapsed_s = 0.6 * i;
    row.max_over_mean_load = 1.5;
    for (int layer = 1; layer <= layers; ++layer) {
      row.moe_layers.push_back(layer);
      row.layer_loads.push_back(1.0 + 0.1 * layer);
    }
    row.time.emplace().seconds[0] = 0.25;
    if (i % 10 == 0) {
      row.val_loss = *row.loss + 0.125;
      row.val_bits_per_byte = 1.75;
    }
    metrics.rows.push_back(row);
  }
  return metrics;
}

Summary MakeSummary() {
  Summary summary;
  summary.name = "run <1>";
  summary.exit_reason = "finished";
  summary.steps = summary.total_steps = 20;
  summary.final_loss = 4.0;
  summary.final_val_loss = 4.125;
  summary.final_val_bits_per_byte = 1.75;
  summary.best_val_loss = 4.125;
  summary.memory_table = "arena & more 5 MiB\n";
  summary.data_table = "<script>alert(1)</script> of 2 MB\n";
  summary.config_text = "name: \"<b>\"\ntrain {\n  seed: 1\n}\n";
  summary.loads = {{1, 2}, {{10, 20, 30, 40}, {25, 25, 25, 25}}};
  summary.numerics_hash = "abc";
  return summary;
}

TEST(ReportTest, ShowsEverythingWellFormed) {
  const std::string html = RenderReport(MakeSummary(), Metrics(20, 2));
  EXPECT_EQ(FindMarkupProblem(html), "");
  for (const char* part :
       {">Loss</text>", ">Learning rate</text>", ">Gradient norm before clipping</text>", ">Throughput</text>",
        ">Expert load: busiest expert over mean</text>", ">Load of every expert in the last step</text>",
        ">Where the time of a step goes</text>", "arena &amp; more 5 MiB", "<summary>The whole config</summary>",
        "&lt;script&gt;alert(1)", "run &lt;1&gt;", "4.1250<i>nats/token</i>", "1.7500<i>bits/byte</i>",
        "prefers-color-scheme:dark", "@media print"}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
}

TEST(ReportTest, NeedsNoScriptAndNoNetwork) {
  const std::string html = RenderReport(MakeSummary(), Metrics(20, 2));
  for (const char* absent : {"<script", "<link", "src=", "@import", "url(", "href="}) {
    EXPECT_THAT(html, Not(HasSubstr(absent)));
  }
}

TEST(ReportTest, AccountsForAllTime) {
  const std::string html = RenderReport(MakeSummary(), Metrics(20, 2));
  // Half of each step is in matrix products, and half in nothing that was timed.
  EXPECT_EQ(CountOf(">50.0%</text>", html), 2);
  EXPECT_THAT(html, HasSubstr(">other</text>"));
}

TEST(ReportTest, ManyLayersBecomeAHeatMap) {
  EXPECT_THAT(RenderReport(MakeSummary(), Metrics(20, 8)), Not(HasSubstr("of each layer over time")));
  const std::string html = RenderReport(MakeSummary(), Metrics(20, 9));
  EXPECT_THAT(html, HasSubstr("Expert load of each layer over time"));
  EXPECT_EQ(FindMarkupProblem(html), "");
}

TEST(ReportTest, AnEmptyRunHasAPageToo) {
  const std::string html = RenderReport(Summary(), MetricsFile());
  EXPECT_EQ(FindMarkupProblem(html), "");
  EXPECT_THAT(html, Not(HasSubstr("<svg")));
}

TEST(ReportTest, AFailedRunSaysSo) {
  Summary summary = MakeSummary();
  summary.exit_reason = "failed: loss is not finite";
  EXPECT_THAT(RenderReport(summary, Metrics(20, 2)), HasSubstr("<span class=\"status bad\">failed: loss"));
}

TEST(ReportTest, OfAKilledRunShowsWhatTheMetricsKnow) {
  const TempDir dir;
  FileSystem& fs = PosixFileSystem();
  std::string lines;
  for (const StepMetrics& row : Metrics(20, 2).rows) lines += ToJsonLine(row);
  Summary summary;
  summary.total_steps = 100;
  ASSERT_TRUE(WriteFile(fs, dir.File("metrics.jsonl"), lines + "{\"step\":21").ok());
  ASSERT_TRUE(WriteFile(fs, dir.File("summary.json"), ToJson(summary)).ok());
  ASSERT_EQ(WriteReport(fs, dir.path()), absl::OkStatus());
  const std::string html = *ReadFile(fs, dir.File("report.html"));
  EXPECT_THAT(html, HasSubstr("20 of 100 steps are done"));
  EXPECT_THAT(html, HasSubstr("4.1250<i>nats/token</i>"));
  EXPECT_THAT(html, HasSubstr(">running</span>"));
}

TEST(ReportTest, AFullDiskLeavesTheReportThatWas) {
  const TempDir dir;
  ASSERT_TRUE(WriteFile(PosixFileSystem(), dir.File("metrics.jsonl"), ToJsonLine(Metrics(1, 0).rows[0])).ok());
  ASSERT_TRUE(WriteFile(PosixFileSystem(), dir.File("summary.json"), ToJson(MakeSummary())).ok());
  FaultFileSystem count(PosixFileSystem());
  ASSERT_EQ(WriteReport(count, dir.path()), absl::OkStatus());
  const std::string good = *ReadFile(PosixFileSystem(), dir.File("report.html"));
  for (int64_t i = 0; i < count.mutation_count(); ++i) {
    FaultFileSystem full(PosixFileSystem());
    full.InjectAt(i, Fault::kShortAppend);
    EXPECT_FALSE(WriteReport(full, dir.path()).ok()) << i;
    EXPECT_EQ(*ReadFile(PosixFileSystem(), dir.File("report.html")), good) << i;
  }
  EXPECT_FALSE(Exists(PosixFileSystem(), dir.File("report.html.tmp")));
}

TEST(ReportTest, AbsentFilesAreNamed) {
  const TempDir dir;
  const absl::Status status = WriteReport(PosixFileSystem(), dir.path());
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("metrics.jsonl"));
}

class CompareTest : public testing::Test {
 protected:
  CompareTest() {
    for (const char* name : {"a/run", "b/run"}) {
      const std::string run_dir = dir_.File(name);
      EXPECT_TRUE(fs_.CreateDirectories(run_dir).ok());
      Summary summary = MakeSummary();
      if (name[0] == 'b') summary.config_text = "name: \"<b>\"\ntrain {\n  seed: 2\n}\n";
      std::string lines;
      for (const StepMetrics& row : Metrics(20, 2).rows) lines += ToJsonLine(row);
      EXPECT_TRUE(WriteFile(fs_, JoinPath(run_dir, "summary.json"), ToJson(summary)).ok());
      EXPECT_TRUE(WriteFile(fs_, JoinPath(run_dir, "metrics.jsonl"), lines).ok());
    }
  }
  FileSystem& fs_ = PosixFileSystem();
  const TempDir dir_;
};

TEST_F(CompareTest, TableHasAColumnARunAndTheDifferences) {
  const auto runs = ReadRuns(fs_, {dir_.File("a/run"), dir_.File("b/run")});
  ASSERT_TRUE(runs.ok()) << runs.status();
  const std::string table = CompareTable(*runs);
  EXPECT_THAT(table, testing::ContainsRegex("\n?  +run +run \\(2\\)\n"));
  EXPECT_THAT(table, testing::ContainsRegex("validation, nats/token +4\\.1250 +4\\.1250\n"));
  EXPECT_THAT(table, HasSubstr("config of run (2) against run:\n  numerics  train.seed: 1 -> 2\n"));
}

TEST_F(CompareTest, OfAKilledRunShowsWhatTheMetricsKnow) {
  Summary summary = MakeSummary();
  summary.exit_reason = "running";
  summary.steps = 0;
  summary.final_loss = summary.final_val_loss = std::nullopt;
  ASSERT_TRUE(WriteFile(fs_, dir_.File("b/run/summary.json"), ToJson(summary)).ok());
  const auto runs = ReadRuns(fs_, {dir_.File("a/run"), dir_.File("b/run")});
  ASSERT_TRUE(runs.ok()) << runs.status();
  const std::string table = CompareTable(*runs);
  EXPECT_THAT(table, testing::ContainsRegex("exit reason +finished +running\n"));
  EXPECT_THAT(table, testing::ContainsRegex("steps +20/20 +20/20\n"));
  EXPECT_THAT(table, testing::ContainsRegex("\nloss, nats/token +4\\.0000 +4\\.0000\n"));
  EXPECT_THAT(table, testing::ContainsRegex("validation, nats/token +4\\.1250 +4\\.1250\n"));
}

// A resumed run's config says every default.
TEST_F(CompareTest, ADefaultThatIsSaidIsNoDifference) {
  config::RunConfig config;
  config.set_name("<b>");
  config.mutable_train()->set_seed(1);
  config::FillDefaults(config);
  Summary summary = MakeSummary();
  summary.config_text = config::CanonicalText(config);
  ASSERT_TRUE(WriteFile(fs_, dir_.File("b/run/summary.json"), ToJson(summary)).ok());
  const auto runs = ReadRuns(fs_, {dir_.File("a/run"), dir_.File("b/run")});
  ASSERT_TRUE(runs.ok()) << runs.status();
  EXPECT_THAT(CompareTable(*runs), HasSubstr("config of run (2) against run: equal\n"));
  std::vector<ComparedRun> unreadable = *runs;
  unreadable[1].summary.config_text = "warp_speed: 9";
  EXPECT_THAT(CompareTable(unreadable), HasSubstr("against run: a config cannot be read"));
}

TEST_F(CompareTest, PageOverlaysTheCurves) {
  const auto runs = ReadRuns(fs_, {dir_.File("a/run"), dir_.File("b/run")});
  ASSERT_TRUE(runs.ok()) << runs.status();
  const std::string html = ComparePage(*runs);
  EXPECT_EQ(FindMarkupProblem(html), "");
  EXPECT_EQ(CountOf("<svg", html), 6);
  EXPECT_EQ(CountOf(">run (2)</text>", html), 6);
}

TEST_F(CompareTest, AnAbsentRunIsNamed) {
  const auto runs = ReadRuns(fs_, {dir_.File("a/run"), dir_.File("none")});
  EXPECT_TRUE(absl::IsNotFound(runs.status()));
  EXPECT_THAT(std::string(runs.status().message()), HasSubstr("none/summary.json"));
}

}  // namespace
}  // namespace shoestring
