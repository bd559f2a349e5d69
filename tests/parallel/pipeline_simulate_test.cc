// Simulated schedules have the bubbles and the memory that were published of them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/simulate.h"
#include "tests/parallel/pipeline_testing.h"

namespace shoestring {
namespace {

constexpr double kExact = 1e-9;

Simulation SimulateCase(const PipelineCase& c, const StageCosts& stage, double overlapped_share = 1.0) {
  const Mesh mesh = c.mesh();
  ProgramCosts costs = ProgramCosts::Equal(mesh.stages(), stage);
  costs.overlapped_share = overlapped_share;
  return Simulate(c.program(), mesh, costs);
}

double LeastBubble(const Simulation& simulation) {
  double least_s = simulation.makespan_s;
  for (size_t p = 0; p < simulation.positions.size(); ++p) {
    least_s = std::min(least_s, simulation.bubble_s(static_cast<int>(p)));
  }
  return least_s;
}

double MostBubble(const Simulation& simulation) {
  double most_s = 0.0;
  for (size_t p = 0; p < simulation.positions.size(); ++p) {
    most_s = std::max(most_s, simulation.bubble_s(static_cast<int>(p)));
  }
  return most_s;
}

int MostLive(const Simulation& simulation) {
  int most = 0;
  for (const Simulation::Position& position : simulation.positions) most = std::max(most, position.most_live);
  return most;
}

// Costs that fit no grid, weight gradients cheaper than the rest as the zero-bubble formulas assume.
const StageCosts kStages[] = {{1, 1, 1}, {2, 2, 1}, {1, 1.5, 1}, {1.25, 2, 0.75}, {2, 3, 2}};

// (PP - 1)(F + B), B the whole backward. Narayanan et al. 2021, section 2.2.1; DualPipe's table.
TEST(SimulateTest, GPipeAndOneFOneBHaveTheirBubble) {
  for (const StageCosts& stage : kStages) {
    for (const int p : {1, 2, 4, 8, 16, 32}) {
      for (const int64_t m : {p, 2 * p + 1}) {
        const double published_s = (p - 1) * (stage.forward_s + stage.backward_s());
        for (const char* schedule : {"gpipe", "one_f_one_b"}) {
          const Simulation simulation = SimulateCase({schedule, p, m}, stage);
          EXPECT_NEAR(LeastBubble(simulation), published_s, kExact) << schedule << " " << p << " " << m;
          EXPECT_NEAR(MostBubble(simulation), published_s, kExact) << schedule << " " << p << " " << m;
        }
        EXPECT_EQ(MostLive(SimulateCase({"gpipe", p, m}, stage)), m);
        EXPECT_EQ(MostLive(SimulateCase({"one_f_one_b", p, m}, stage)), p);
      }
    }
  }
}

// (PP - 1)(F + B) / v with the costs of a whole position, which is (PP - 1)(F + B) with those of one of its v stages.
// Narayanan et al. 2021, section 2.2.2; live activations PP (1 + (PP - 1) / (PP v)), Korthikanti et al. 2022,
// sect. 4.2.3.
TEST(SimulateTest, InterleavedHasItsBubble) {
  for (const StageCosts& stage : kStages) {
    for (const int p : {1, 2, 4, 8, 16}) {
      for (const int v : {2, 3, 4}) {
        const Simulation simulation = SimulateCase({"interleaved", p, 3 * p, v}, stage);
        EXPECT_NEAR(MostBubble(simulation), (p - 1) * (stage.forward_s + stage.backward_s()), kExact) << p << " " << v;
        EXPECT_EQ(MostLive(simulation), p * v + p - 1) << p << " " << v;
      }
    }
  }
}

// (PP - 1)(F + B - 2W), B the whole backward; PP micro-batches alive. Qi et al. 2023, table 2; DualPipe's table.
TEST(SimulateTest, ZbH1HasItsBubble) {
  for (const StageCosts& stage : kStages) {
    for (const int p : {1, 2, 4, 8, 16, 32}) {
      for (const int64_t m : {p, 2 * p + 1}) {
        const Simulation simulation = SimulateCase({"zb_h1", p, m}, stage);
        const double published_s = (p - 1) * (stage.forward_s + stage.backward_s() - 2 * stage.backward_weight_s);
        EXPECT_NEAR(LeastBubble(simulation), published_s, kExact) << p << " " << m;
        EXPECT_NEAR(MostBubble(simulation), published_s, kExact) << p << " " << m;
        EXPECT_EQ(MostLive(simulation), p);
      }
    }
  }
}

// No wait between the first and the last action of a position at equal costs, with the memory of 1F1B: 2 PP stages of
// which each is half as large. Qi et al. 2023, section 6. What is left is the way to the turning point.
TEST(SimulateTest, ZbVWaitsNowhereInside) {
  for (const int p : {1, 2, 4, 8, 16, 32}) {
    for (const int64_t m : {2 * p, 2 * p + 3, 4 * p}) {
      const Simulation simulation = SimulateCase({"zb_v", p, m}, {1, 1, 1});
      for (const Simulation::Position& position : simulation.positions) {
        EXPECT_NEAR(position.idle_inside_s(), 0.0, kExact) << p << " " << m;
      }
      EXPECT_NEAR(MostBubble(simulation), p - 1, kExact) << p << " " << m;
      EXPECT_EQ(MostLive(simulation), 2 * p) << p << " " << m;
    }
  }
}

// (PP / 2 - 1)(F&B + B - 3W), PP + 1 activations: V3 report, table 2. It is stated for a forward as long as the
// gradients of inputs, and weight gradients no longer; F&B is what an overlapped pair takes. Where pairs gain time, a
// position with fewer of them is busier: the formula is that of the positions in the middle, which wait longest.
TEST(SimulateTest, DualPipeHasItsBubble) {
  for (const StageCosts& stage : {StageCosts{1, 1, 1}, {2, 2, 1}, {1.5, 1.5, 1.25}}) {
    for (const double share : {1.0, 0.9, 0.8}) {
      for (const int stages : {4, 6, 8, 10, 12, 16, 24, 32}) {
        const double pair_s = share * (stage.forward_s + stage.backward_s());
        const double published_s = (stages / 2 - 1) * (pair_s + stage.backward_s() - 3 * stage.backward_weight_s);
        const std::string where = absl::StrCat(stages, " stages, share ", share, ", F ", stage.forward_s);
        for (const int64_t m : {stages, stages + 1, 2 * stages}) {
          const Simulation dualpipe = SimulateCase({"dualpipe", stages, m}, stage, share);
          EXPECT_NEAR(MostBubble(dualpipe), published_s, kExact) << where;
          EXPECT_NEAR(dualpipe.bubble_s(stages / 2), published_s, kExact) << where;
          EXPECT_EQ(MostLive(dualpipe), stages + 1) << where;
          if (share == 1.0) {
            EXPECT_NEAR(LeastBubble(dualpipe), published_s, kExact) << where;
          }
          // The same number of stages on half the positions, as many micro-batches through each stage.
          const Simulation half = SimulateCase({"dualpipe_v", stages / 2, m}, stage, share);
          EXPECT_NEAR(MostBubble(half), published_s, kExact) << where;
          EXPECT_EQ(MostLive(half), stages + 1) << where;
          EXPECT_NEAR(half.makespan_s, dualpipe.makespan_s, kExact) << where;
        }
      }
    }
  }
}

// At unequal costs the schedule does better than the formula, never worse.
TEST(SimulateTest, DualPipeStaysBelowTheFormulaWhereInputGradientsAreLonger) {
  for (const StageCosts& stage : {StageCosts{1, 1.5, 1}, {1, 2, 1}, {2, 3, 2}}) {
    for (const int stages : {4, 8, 16}) {
      const double published_s =
          (stages / 2 - 1) * (stage.forward_s + 2 * stage.backward_s() - 3 * stage.backward_weight_s);
      EXPECT_LT(MostBubble(SimulateCase({"dualpipe", stages, 2 * stages}, stage)), published_s) << stages;
    }
  }
}

// Fewer micro-batches than the published schedule needs: never slower than ZB-H1 or 1F1B with as many on as many ranks.
TEST(SimulateTest, DualPipeWithFewMicroBatchesIsTheBetterChoice) {
  for (const StageCosts& stage : {StageCosts{1, 1, 1}, {1, 1.5, 1}}) {
    for (const int p : {2, 4, 8, 16}) {
      for (int64_t m = 1; m < p; ++m) {
        const double dualpipe_s = SimulateCase({"dualpipe", p, m}, stage).makespan_s;
        EXPECT_LE(dualpipe_s, SimulateCase({"zb_h1", p, 2 * m}, stage).makespan_s + kExact) << p << " " << m;
        EXPECT_LE(dualpipe_s, SimulateCase({"one_f_one_b", p, 2 * m}, stage).makespan_s + kExact) << p << " " << m;
      }
      // With one micro-batch each way nothing but the way there and back is left, and one weight gradient; two
      // positions never wait.
      const double way_s = p * (stage.forward_s + stage.backward_input_s) + stage.backward_weight_s;
      const double work_s = 2 * (stage.forward_s + stage.backward_s());
      EXPECT_NEAR(SimulateCase({"dualpipe", p, 1}, stage).makespan_s, std::max(way_s, work_s), kExact);
    }
  }
}

TEST(SimulateTest, TimesOfEveryActionByHand) {
  // Two positions, one micro-batch: F 1 and 2, I 3 and 4, W 5 and 6, messages 10, reductions 0.5.
  const PipelineCase c{"one_f_one_b", 2, 1};
  ProgramCosts costs;
  costs.stages = {{1, 3, 5}, {2, 4, 6}};
  costs.message_s = 10;
  costs.reduce_s = 0.5;
  const Simulation simulation = Simulate(c.program(), c.mesh(), costs);
  const auto text = [&](int p) {
    std::string text;
    for (const Simulation::Interval& i : simulation.positions[p].actions)
      absl::StrAppend(&text, i.start_s, "-", i.end_s, " ");
    return text;
  };
  EXPECT_EQ(ToString(c.program()), "0: F0.0 SF0.0>1 RB0.0<1 B0.0 G0\n1: RF1.0<0 F1.0 B1.0 SB1.0>0 G1\n");
  EXPECT_EQ(text(0), "0-1 1-1 1-33 33-41 41-41.5 ");
  EXPECT_EQ(text(1), "0-11 11-13 13-23 23-23 23-23.5 ");
  EXPECT_EQ(simulation.makespan_s, 41.5);
  EXPECT_EQ(simulation.bubble_s(0), 32.5);
  EXPECT_EQ(simulation.bubble_s(1), 29.5);
  EXPECT_EQ(simulation.bubble_share(), 62.0 / 83.0);
  EXPECT_EQ(simulation.positions[0].idle_inside_s(), 32);
  EXPECT_EQ(simulation.positions[1].first_start_s, 11);
  EXPECT_EQ(simulation.positions[1].last_end_s, 23);
}

// Position 0 is done at 9 and waits until position 1 is, at 11.
TEST(SimulateTest, MirroredPositionsWaitForEachOtherToReduce) {
  const absl::StatusOr<Program> program = ParseProgram(
      "0: F0.0 SF0.0>1 RB0.0<1 B0.0 RF1.0'<1 F1.0' B1.0' SB1.0'>1 G0 G1\n"
      "1: RF1.0<0 F1.0 B1.0 SB1.0>0 F0.0' SF0.0'>0 RB0.0'<0 B0.0' G0 G1\n");
  ProgramCosts costs = ProgramCosts::Equal(2);
  costs.reduce_s = 0.5;
  const Simulation simulation = Simulate(*program, PipelineCase{"dualpipe", 2, 1}.mesh(), costs);
  const Simulation::Interval first = simulation.positions[0].actions[8], other = simulation.positions[1].actions[8];
  EXPECT_EQ(first.start_s, 9);
  EXPECT_EQ(first.end_s, 11.5);
  EXPECT_EQ(other.start_s, 11);
  EXPECT_EQ(other.end_s, 11.5);
  EXPECT_EQ(simulation.makespan_s, 12);
}

TEST(SimulateTest, LiveActivationsOverTime) {
  const PipelineCase c{"zb_h1", 2, 2};
  const Simulation simulation = SimulateCase(c, {1, 1, 1});
  std::string text;
  for (const Simulation::Live& live : simulation.positions[1].live)
    absl::StrAppend(&text, live.time_s, ":", live.count, " ");
  EXPECT_EQ(text, "1:1 3:2 6:1 7:0 ");
}

TEST(ProgramCostsTest, AnOverlappedPairTakesAtLeastItsLongerHalf) {
  ProgramCosts costs;
  costs.stages = {{4, 1, 1}, {1, 2, 3}};
  const Action pair = *ParseAction("F0.1+B1.0");
  EXPECT_EQ(costs.DurationOf(pair), 9);
  costs.overlapped_share = 0.75;
  EXPECT_EQ(costs.DurationOf(pair), 6.75);
  costs.overlapped_share = 0.25;
  EXPECT_EQ(costs.DurationOf(pair), 5);
  EXPECT_EQ(costs.DurationOf(*ParseAction("B1.0")), 5);
  EXPECT_EQ(costs.DurationOf(*ParseAction("I1.0")), 2);
  EXPECT_EQ(costs.DurationOf(*ParseAction("W1.0")), 3);
  EXPECT_EQ(costs.DurationOf(*ParseAction("SF0.0>1")), 0);
}

}  // namespace
}  // namespace shoestring
