// Every schedule is right at every size, counts what is published of it, and refuses what it cannot take.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"
#include "tests/parallel/pipeline_testing.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

Program ComputeOnly(const Program& program) {
  Program compute;
  for (const std::vector<Action>& actions : program.positions) {
    compute.positions.emplace_back();
    for (const Action& action : actions) {
      const Parts parts = PartsOf(action);
      const bool computes =
          parts.forward != nullptr || parts.backward_input != nullptr || parts.backward_weight != nullptr;
      if (computes) compute.positions.back().push_back(action);
    }
  }
  return compute;
}

std::map<ActionKind, int64_t> CountKinds(const std::vector<Action>& actions) {
  std::map<ActionKind, int64_t> counts;
  for (const Action& action : actions) ++counts[action.kind];
  return counts;
}

// Micro-batches alive at once, all stages of the position together: from their F to their W.
int64_t MostAlive(const std::vector<Action>& actions) {
  int64_t alive = 0, most = 0;
  for (const Action& action : actions) {
    const Parts parts = PartsOf(action);
    if (parts.forward != nullptr) most = std::max(most, ++alive);
    if (parts.backward_weight != nullptr) --alive;
  }
  return most;
}

TEST(BuildProgramTest, EveryScheduleIsRightAtEverySize) {
  const std::vector<int64_t> counts = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 40};
  for (const PipelineCase& c : PipelineCases({1, 2, 3, 4, 5, 6, 8, 12, 16}, counts)) {
    const absl::StatusOr<Program> program = BuildProgram(c.layout(), c.mesh(), c.micro_batches);
    EXPECT_TRUE(program.ok()) << c.name() << ": " << program.status();
  }
}

// What BuildProgram adds is a function of what it computes.
TEST(BuildProgramTest, LoweringIsStable) {
  for (const PipelineCase& c : PipelineCases({1, 2, 4}, {2, 4, 8})) {
    const Program program = c.program();
    EXPECT_EQ(Lower(ComputeOnly(program), c.mesh()), program) << c.name();
  }
}

TEST(BuildProgramTest, AbsentScheduleIsOneFOneB) {
  config::LayoutConfig layout = LayoutOf("one_f_one_b", 3);
  layout.clear_schedule();
  const Mesh mesh = *Mesh::Create(layout);
  EXPECT_EQ(*BuildProgram(layout, mesh, 5), (PipelineCase{"one_f_one_b", 3, 5}.program()));
}

TEST(BuildProgramTest, RefusesWhatTheScheduleCannotTake) {
  const auto refusal = [](const PipelineCase& c) {
    return BuildProgram(c.layout(), c.mesh(), c.micro_batches).status();
  };
  EXPECT_EQ(refusal({"interleaved", 4, 6}).message(),
            "interleaved: 6 micro-batches for 4 pipeline ranks; say a multiple of 4");
  EXPECT_EQ(refusal({"dualpipe", 3, 6}).message(),
            "dualpipe: 3 pipeline ranks; say an even number: each rank has a mirror");
  EXPECT_THAT(refusal({"gpipe", 2, 0}).message(), HasSubstr("0 micro-batches enter the pipeline"));
  EXPECT_EQ(refusal({"gpipe", 2, 0}).code(), absl::StatusCode::kInvalidArgument);
}

// Recipe of the V3 report's schedule: forwards alone, overlapped pairs and weight gradients alone at every position.
TEST(DualPipeTest, CountsOfEachPositionAreThePublishedOnes) {
  for (const auto& [positions, total] : {std::pair(16, 120), {8, 20}, {8, 16}, {4, 8}, {2, 4}, {32, 64}}) {
    const Program program = PipelineCase{"dualpipe", positions, total / 2}.program();
    for (int r = 0; r < positions; ++r) {
      const int half = positions / 2, q = std::min(r, positions - 1 - r);
      std::map<ActionKind, int64_t> counts = CountKinds(program.positions[r]);
      // The two positions in the middle run one pair as two actions.
      const int unpaired = q == half - 1 ? 1 : 0;
      const std::string where = absl::StrCat(positions, " positions, ", r);
      EXPECT_EQ(counts[ActionKind::kForward], 3 * half - 1 - q + unpaired) << where;
      EXPECT_EQ(counts[ActionKind::kOverlapped], total - (3 * half - 1 - q) - unpaired) << where;
      EXPECT_EQ(counts[ActionKind::kBackwardWeight], 2 * half - 1 - q) << where;
      EXPECT_LE(MostAlive(program.positions[r]), positions + 1) << where;
    }
    EXPECT_EQ(MostAlive(program.positions[0]), positions + 1);
  }
}

TEST(DualPipeTest, MirroredPositionsRunMirroredPrograms) {
  for (const int64_t m : {1, 2, 3, 5, 7, 8, 10}) {
    Program program = PipelineCase{"dualpipe", 8, m}.program();
    const Program original = program;
    std::reverse(program.positions.begin(), program.positions.end());
    const auto mirror = [](Work& work) { work.direction = Direction(1 - work.direction.value); };
    for (std::vector<Action>& actions : program.positions) {
      for (Action& action : actions) {
        if (action.kind == ActionKind::kReduce) continue;
        mirror(action.work);
        if (action.kind == ActionKind::kOverlapped) mirror(action.paired);
        if (action.peer >= 0) action.peer = 7 - action.peer;
      }
    }
    EXPECT_EQ(ToString(program), ToString(original)) << m << " micro-batches";
  }
}

TEST(DualPipeTest, FewMicroBatchesKeepTheMemoryBound) {
  for (const int positions : {2, 4, 8, 16}) {
    for (int64_t m = 1; m < positions; ++m) {
      const PipelineCase c{"dualpipe", positions, m};
      for (const std::vector<Action>& actions : c.program().positions) {
        EXPECT_LE(MostAlive(actions), std::min<int64_t>(2 * m, positions + 1)) << c.name();
      }
    }
  }
}

TEST(DualPipeVTest, ActivationsAreAsManyAsPublished) {
  for (const int positions : {1, 2, 4, 8}) {
    for (const int64_t m : {1, 2, 3, 2 * positions, 5 * positions + 1}) {
      const PipelineCase c{"dualpipe_v", positions, m};
      for (const std::vector<Action>& actions : c.program().positions) {
        EXPECT_LE(MostAlive(actions), 2 * positions + 1) << c.name();
      }
    }
  }
}

TEST(LiveActivationsTest, OfTheOtherSchedules) {
  for (const int positions : {1, 2, 4, 8}) {
    for (const int64_t m : {positions, 3 * positions}) {
      for (int p = 0; p < positions; ++p) {
        const auto most = [&](const char* schedule) {
          return MostAlive(PipelineCase{schedule, positions, m}.program().positions[p]);
        };
        EXPECT_EQ(most("gpipe"), m);
        EXPECT_EQ(most("one_f_one_b"), std::min<int64_t>(positions - p, m));
        EXPECT_EQ(most("zb_h1"), positions);
        EXPECT_LE(most("zb_v"), 2 * positions);
        EXPECT_EQ(most("interleaved"), std::min<int64_t>(2 * (positions - 1 - p) + positions + 1, 2 * m));
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
