// Trace files: what was recorded is in the JSON, comes back, and is drawn; what is no trace is refused by name.
#include "trainer/observe/trace_file.h"

#include <zlib.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "configs/schema/run.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "parallel/pipeline/build.h"
#include "tests/base/temp_dir.h"
#include "trainer/observe/timeline.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

config::LayoutConfig TwoPositions() {
  config::LayoutConfig layout;
  CHECK(google::protobuf::TextFormat::ParseFromString("pipeline_ranks: 2 stages: 2 dualpipe {}", &layout));
  return layout;
}

void WriteProgram(const std::string& run, int64_t step) {
  const config::LayoutConfig layout = TwoPositions();
  const Mesh mesh = *Mesh::Create(layout);
  const Program program = *BuildProgram(layout, mesh, 4);
  for (int p = 0; p < 2; ++p) {
    StepTrace trace(RealClock());
    for (const Action& action : program.positions[p]) {
      trace.BeginAction();
      trace.BeginPiece();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      trace.EndPiece(true);
      trace.EndAction(action);
    }
    ASSERT_TRUE(
        WriteTrace(PosixFileSystem(), TraceDirectory(JoinPath(run, "attempt_001")), {p, p, 0, step}, trace).ok());
  }
}

TEST(TraceFileTest, ActionsComeBackUnderTheirNames) {
  const TempDir dir;
  WriteProgram(dir.path(), 7);
  const auto file = ReadTrace(PosixFileSystem(), TracePath(JoinPath(dir.path(), "attempt_001/trace"), 1));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->facts.rank, 1);
  EXPECT_EQ(file->facts.step, 7);
  const Program program = *BuildProgram(TwoPositions(), *Mesh::Create(TwoPositions()), 4);
  ASSERT_EQ(file->actions.size(), program.positions[1].size());
  double before = 0;
  for (size_t i = 0; i < file->actions.size(); ++i) {
    EXPECT_EQ(file->actions[i].action, program.positions[1][i]);
    EXPECT_GE(file->actions[i].begin_us, before);
    EXPECT_GE(file->actions[i].end_us - file->actions[i].begin_us, 49);
    before = file->actions[i].end_us - 0.01;  // printed to a nanosecond
  }
}

TEST(TraceFileTest, IsTheTraceEventFormat) {
  StepTrace trace(RealClock());
  trace.BeginAction();
  trace.EndAction(*ParseAction("F0.3'+B1.1"));
  const auto json = nlohmann::json::parse(TraceJson({2, 1, 0, 3}, trace));
  const auto& event = json.at("traceEvents").at(1);
  EXPECT_EQ(event.at("name"), "F0.3'+B1.1");
  EXPECT_EQ(event.at("cat"), "overlapped");
  EXPECT_EQ(event.at("ph"), "X");
  EXPECT_EQ(event.at("pid"), 2);
}

TEST(TraceFileTest, AStepThatDidNotFitIsNotDrawn) {
  const TempDir dir;
  StepTrace trace(RealClock(), /*max_events=*/1);
  for (int i = 0; i < 3; ++i) {
    trace.BeginPiece();
    trace.EndPiece(true);
  }
  ASSERT_TRUE(WriteTrace(PosixFileSystem(), dir.path(), {0, 0, 0, 3}, trace).ok());
  EXPECT_EQ(nlohmann::json::parse(TraceJson({0, 0, 0, 3}, trace)).at("otherData").at("dropped"), 2);
  EXPECT_THAT(std::string(ReadTrace(PosixFileSystem(), TracePath(dir.path(), 0)).status().message()),
              HasSubstr("is not whole"));
}

TEST(TimelineTest, DrawsWhatWasMeasuredAboveWhatWasPlanned) {
  const TempDir dir;
  WriteProgram(dir.path(), 3);
  const auto timeline = ReadTimeline(PosixFileSystem(), dir.path(), TwoPositions());
  ASSERT_TRUE(timeline.ok()) << timeline.status();
  EXPECT_EQ(timeline->step, 3);
  EXPECT_GT(timeline->measured_s, timeline->planned_s);  // the positions were recorded one after the other
  EXPECT_GT(timeline->measured_bubble, timeline->planned_bubble);
  EXPECT_THAT(timeline->measured_svg, HasSubstr("<svg"));
  EXPECT_THAT(timeline->measured_svg, HasSubstr("Measured: step 3"));
  EXPECT_THAT(timeline->planned_svg, HasSubstr("Planned: step 3"));
}

// Each action takes 100 us, and each that computes waits 40 of them for an exchange.
TEST(TimelineTest, ShowsWhatNoComputationHid) {
  const TempDir dir;
  const Mesh mesh = *Mesh::Create(config::LayoutConfig());
  const Program program = *BuildProgram(config::LayoutConfig(), mesh, 3);
  ManualClock clock;
  StepTrace trace(clock);
  for (const Action& action : program.positions[0]) {
    trace.BeginAction();
    clock.Advance(100'000);
    trace.EndAction(action);
  }
  std::string text = TraceJson({0, 0, 0, 3}, trace);
  std::string waits;  // as of calls
  int computing = 0;
  for (size_t i = 0; i < program.positions[0].size(); ++i) {
    if (program.positions[0][i].kind == ActionKind::kReduce) continue;
    ++computing;
    absl::StrAppend(&waits, R"(,{"ph":"X","pid":0,"tid":3,"name":"dispatch","cat":"wait","ts":)", 100 * i + 30,
                    R"(,"dur":40})");
  }
  ASSERT_GT(computing, 3);
  text.insert(text.rfind(']'), waits);
  const std::string traces = TraceDirectory(JoinPath(dir.path(), "attempt_000"));
  ASSERT_TRUE(PosixFileSystem().CreateDirectories(traces).ok());
  const gzFile packed = gzopen(TracePath(traces, 0).c_str(), "wb");
  ASSERT_EQ(gzwrite(packed, text.data(), static_cast<unsigned>(text.size())), static_cast<int>(text.size()));
  ASSERT_EQ(gzclose(packed), Z_OK);
  const auto timeline = ReadTimeline(PosixFileSystem(), dir.path(), config::LayoutConfig());
  ASSERT_TRUE(timeline.ok()) << timeline.status();
  const double all = static_cast<double>(program.positions[0].size());
  EXPECT_NEAR(timeline->measured_s, 100e-6 * all, 1e-9);
  EXPECT_NEAR(timeline->measured_exposed, 0.4 * computing / all, 1e-6);
  EXPECT_NEAR(timeline->measured_bubble, 1 - 0.6 * computing / all, 1e-6);
  EXPECT_NEAR(timeline->planned_s, 60e-6 * computing, 1e-9);  // nobody waits in the plan
  EXPECT_THAT(timeline->measured_svg, HasSubstr("waits for another rank: 0.03 to 0.07"));
  EXPECT_THAT(timeline->planned_svg, Not(HasSubstr("waits for another rank")));
}

TEST(TimelineTest, AnotherLayoutsTracesAreRefused) {
  const TempDir dir;
  WriteProgram(dir.path(), 3);
  for (const char* text : {"pipeline_ranks: 1 stages: 1", "pipeline_ranks: 2 stages: 2"}) {
    config::LayoutConfig layout;
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &layout));
    EXPECT_THAT(ReadTimeline(PosixFileSystem(), dir.path(), layout).status().message(), HasSubstr("another layout"));
  }
}

TEST(TimelineTest, WhatIsNoTraceIsNamed) {
  const TempDir dir;
  EXPECT_EQ(ReadTimeline(PosixFileSystem(), dir.path(), TwoPositions()).status().code(), absl::StatusCode::kNotFound);
  WriteProgram(dir.path(), 3);
  const std::string path = TracePath(JoinPath(dir.path(), "attempt_001/trace"), 1);
  ASSERT_TRUE(WriteFile(PosixFileSystem(), path, "not gzip").ok());
  const absl::Status status = ReadTimeline(PosixFileSystem(), dir.path(), TwoPositions()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr(path));
}

}  // namespace
}  // namespace shoestring
