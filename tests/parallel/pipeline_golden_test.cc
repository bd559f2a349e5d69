// The programs of tests/parallel/golden/, one small one a schedule: what users read, and what must not change
// unnoticed.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "parallel/pipeline/draw.h"
#include "parallel/pipeline/program_json.h"
#include "tests/parallel/pipeline_testing.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string ReadGolden(const std::string& name) {
  const absl::StatusOr<std::string> text = ReadFile(PosixFileSystem(), absl::StrCat("tests/parallel/golden/", name));
  CHECK(text.ok());
  return *text;
}

Simulation SimulateEqual(const PipelineCase& c) {
  return Simulate(c.program(), c.mesh(), ProgramCosts::Equal(c.mesh().stages()));
}

std::vector<PipelineCase> GoldenCases() {
  return {{"gpipe", 4, 4},    {"one_f_one_b", 4, 4}, {"interleaved", 2, 4}, {"zb_h1", 4, 4},     {"zb_v", 2, 4},
          {"dualpipe", 4, 4}, {"dualpipe", 4, 2},    {"dualpipe_v", 2, 4},  {"dualpipe_v", 2, 2}};
}

TEST(GoldenProgramTest, TextsAreAsRecorded) {
  for (const PipelineCase& c : GoldenCases()) {
    const std::string recorded = ReadGolden(c.name() + ".txt");
    std::vector<std::string> lines = absl::StrSplit(recorded, '\n');
    lines.erase(
        std::remove_if(lines.begin(), lines.end(), [](const auto& line) { return absl::StartsWith(line, "#"); }),
        lines.end());
    EXPECT_EQ(absl::StrJoin(lines, "\n"), ToString(c.program())) << c.name();
    EXPECT_EQ(*ParseProgram(recorded), c.program()) << c.name();
  }
}

TEST(GoldenProgramTest, JsonIsAsRecorded) {
  const PipelineCase c{"dualpipe", 2, 2};
  EXPECT_EQ(ProgramJson(c.program(), c.mesh(), SimulateEqual(c)), ReadGolden(c.name() + ".json"));
}

TEST(ProgramJsonTest, HoldsTheProgramAndItsTimes) {
  for (const PipelineCase& c : PipelineCases({1, 2, 4}, {4})) {
    const Program program = c.program();
    const Simulation simulation = SimulateEqual(c);
    const auto json = nlohmann::json::parse(ProgramJson(program, c.mesh(), simulation));
    EXPECT_EQ(json["format"], "shoestring-schedule");
    EXPECT_EQ(json["makespan"], simulation.makespan_s);
    ASSERT_EQ(json["positions"].size(), program.positions.size());
    for (size_t p = 0; p < program.positions.size(); ++p) {
      const auto& position = json["positions"][p];
      EXPECT_EQ(position["bubble"], simulation.bubble_s(static_cast<int>(p)));
      ASSERT_EQ(position["actions"].size(), program.positions[p].size());
      for (size_t i = 0; i < program.positions[p].size(); ++i) {
        const auto& action = position["actions"][i];
        EXPECT_EQ(*ParseAction(action["text"].get<std::string>()), program.positions[p][i]);
        EXPECT_EQ(action["stage"], program.positions[p][i].work.stage.value);
        EXPECT_EQ(action["end"], simulation.positions[p].actions[i].end_s);
        EXPECT_EQ(action.contains("paired"), action["kind"] == "overlapped");
        EXPECT_EQ(action.contains("peer"), program.positions[p][i].peer >= 0);
      }
    }
  }
}

// Times a word occurs.
int64_t Count(absl::string_view text, absl::string_view word) {
  int64_t count = 0;
  for (size_t at = text.find(word); at != absl::string_view::npos; at = text.find(word, at + word.size())) ++count;
  return count;
}

TEST(DrawSimulationTest, DrawsEveryComputation) {
  for (const PipelineCase& c : PipelineCases({1, 2, 4}, {4, 8})) {
    const std::string svg = DrawSimulation(c.program(), c.mesh(), SimulateEqual(c), "<a & b>");
    int64_t boxes = 0, pairs = 0;
    for (const std::vector<Action>& actions : c.program().positions) {
      for (const Action& action : actions) {
        const Parts parts = PartsOf(action);
        pairs += action.kind == ActionKind::kOverlapped;
        boxes += parts.forward != nullptr || parts.backward_input != nullptr || parts.backward_weight != nullptr;
      }
    }
    EXPECT_EQ(Count(svg, "</title></rect>"), boxes + pairs) << c.name();
    EXPECT_EQ(Count(svg, "class=\"p\""), pairs + (pairs > 0)) << c.name();  // and one in the legend
    EXPECT_EQ(Count(svg, "class=\"r\""), c.positions) << c.name();
    EXPECT_THAT(svg, HasSubstr("&lt;a &amp; b&gt;"));
    EXPECT_THAT(svg, HasSubstr("prefers-color-scheme:dark"));
    EXPECT_THAT(svg, Not(HasSubstr("<script")));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_EQ(Count(svg, "direction 1"), c.schedule == "dualpipe") << c.name();
  }
}

// Forwards of the other direction, or of the second of two chunks, have the darkest tone; one more is in the legend.
TEST(DrawSimulationTest, TonesTellDirectionsAndChunksApart) {
  for (const PipelineCase& c :
       {PipelineCase{"dualpipe", 4, 4}, {"zb_v", 2, 4}, {"dualpipe_v", 4, 8}, {"interleaved", 2, 4}}) {
    int64_t dark = 0;
    for (const std::vector<Action>& actions : c.program().positions) {
      for (const Action& action : actions) {
        const Work* work = PartsOf(action).forward;
        dark += work != nullptr &&
                (c.schedule == "dualpipe" ? work->direction.value == 1 : work->stage.value >= c.positions);
      }
    }
    const std::string svg = DrawSimulation(c.program(), c.mesh(), SimulateEqual(c), "tones");
    EXPECT_EQ(Count(svg, "fill=\"#265cba\""), dark + 1) << c.name();
  }
}

// All costs zero: nothing to divide by.
TEST(DrawSimulationTest, SurvivesNoTimeAtAll) {
  const PipelineCase c{"one_f_one_b", 2, 2};
  const Simulation simulation = Simulate(c.program(), c.mesh(), ProgramCosts::Equal(2, {0, 0, 0}));
  EXPECT_EQ(simulation.bubble_share(), 0.0);
  const std::string svg = DrawSimulation(c.program(), c.mesh(), simulation, "none");
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

}  // namespace
}  // namespace shoestring
