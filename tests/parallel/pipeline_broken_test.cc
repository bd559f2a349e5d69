// The checker finds each of many programs that were right until one thing was done to them.
#include <algorithm>
#include <functional>
#include <ostream>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/check.h"
#include "tests/parallel/pipeline_testing.h"

namespace shoestring {
namespace {

using Actions = std::vector<Action>;

Actions::iterator Find(Actions& actions, const std::string& text) {
  const auto it = std::find(actions.begin(), actions.end(), *ParseAction(text));
  CHECK(it != actions.end());
  return it;
}

// What is done to the actions of one position.
using Change = std::function<void(Actions&)>;

Change Erase(const std::string& text) {
  return [=](Actions& actions) { actions.erase(Find(actions, text)); };
}
Change Replace(const std::string& text, const std::string& by) {
  return [=](Actions& actions) { *Find(actions, text) = *ParseAction(by); };
}
Change InsertBefore(const std::string& place, const std::string& text) {
  return [=](Actions& actions) { actions.insert(Find(actions, place), *ParseAction(text)); };
}
Change Append(const std::string& text) {
  return [=](Actions& actions) { actions.push_back(*ParseAction(text)); };
}
Change Swap(const std::string& a, const std::string& b) {
  return [=](Actions& actions) { std::iter_swap(Find(actions, a), Find(actions, b)); };
}
Change Move(const std::string& text, const std::string& before) {
  return [=](Actions& actions) {
    actions.erase(Find(actions, text));
    actions.insert(Find(actions, before), *ParseAction(text));
  };
}
struct BrokenCase {
  std::string name;
  PipelineCase program;
  std::vector<std::pair<int, Change>> changes;  // position, what is done there
  std::string message;                          // part of what the checker must say
};
std::ostream& operator<<(std::ostream& out, const BrokenCase& c) { return out << c.name; }

// The programs that are broken, for reading along:
//   one_f_one_b 2 3   0: F0.0 SF0.0>1 F0.1 SF0.1>1 RB0.0<1 B0.0 F0.2 SF0.2>1 RB0.1<1 B0.1 RB0.2<1 B0.2 G0
//                     1: RF1.0<0 F1.0 B1.0 SB1.0>0 RF1.1<0 F1.1 B1.1 SB1.1>0 RF1.2<0 F1.2 B1.2 SB1.2>0 G1
//   zb_h1 2 3         1: RF1.0<0 F1.0 I1.0 SB1.0>0 RF1.1<0 F1.1 I1.1 SB1.1>0 W1.0 RF1.2<0 F1.2 I1.2 SB1.2>0 W1.1 W1.2
//   G1 zb_v 1 2          0: F0.0 F1.0 I1.0 W1.0 F0.1 I0.0 W0.0 F1.1 I1.1 W1.1 G1 I0.1 W0.1 G0 dualpipe 2 2      0: F0.0
//   SF0.0>1 RF1.0'<1 F1.0' F0.1 SF0.1>1 B1.0' SB1.0'>1 RF1.1'<1 RB0.0<1 F1.1'+B0.0 ...
std::vector<BrokenCase> WorkCases() {
  const PipelineCase line{"one_f_one_b", 2, 3}, split{"zb_h1", 2, 3}, mirror{"dualpipe", 2, 2}, v{"zb_v", 1, 2};
  return {
      {"forward_missing", line, {{1, Erase("F1.1")}}, "B1.1: its forward is not done"},
      {"last_backward_missing", line, {{0, Erase("B0.2")}}, "position 0: B0.2 is missing"},
      {"weight_gradient_missing", split, {{1, Erase("W1.2")}}, "position 1: W1.2 is missing"},
      {"first_weight_gradient_missing", split, {{1, Erase("W1.0")}}, "micro-batch 0 are to be added before"},
      {"forward_twice", line, {{1, InsertBefore("B1.1", "F1.1")}}, "the forward is done twice"},
      {"input_gradient_twice", split, {{1, InsertBefore("SB1.0>0", "I1.0")}}, "the backward is done twice"},
      {"weight_gradient_twice", split, {{1, InsertBefore("G1", "W1.2")}}, "the weight gradients are done twice"},
      {"whole_backward_after_split", split, {{1, InsertBefore("G1", "B1.2")}}, "the backward is done twice"},
      {"weights_after_whole_backward", line, {{1, InsertBefore("G1", "W1.2")}}, "weight gradients are done twice"},
      {"backward_before_forward", line, {{1, Swap("F1.0", "B1.0")}}, "B1.0: its forward is not done"},
      {"weights_before_inputs", split, {{1, Move("W1.0", "I1.0")}}, "W1.0: its input gradients are not done"},
      {"weights_out_of_order", split, {{1, Swap("W1.1", "W1.2")}}, "micro-batch 1 are to be added before"},
      {"pair_needs_itself", mirror, {{0, Replace("F1.1'+B0.0", "F1.1'+B1.1'")}}, "its forward is not done"},
      {"pair_without_its_gradient", mirror, {{0, Erase("RB0.0<1")}}, "its output gradient is not there"},
      {"pair_without_its_input", mirror, {{0, Erase("RF1.1'<1")}}, "its input is not there"},
      {"pair_counted_again", mirror, {{0, Append("B0.0")}}, "the backward is done twice"},
      {"forward_at_the_wrong_position", line, {{0, Append("F1.2")}}, "stage 1 is at position 1"},
      {"forward_in_the_wrong_direction", mirror, {{0, Replace("F0.1", "F0.1'")}}, "stage 0 is at position 1"},
      {"stage_beyond_the_model", line, {{1, Append("F2.0")}}, "there are 2 stages"},
      {"micro_batch_beyond_the_step", line, {{0, InsertBefore("G0", "F0.3")}}, "there are 3 micro-batches"},
      {"direction_of_one_way_pipeline", line, {{0, Replace("F0.1", "F0.1'")}}, "the pipeline has one direction"},
      {"turning_point_out_of_order", v, {{0, Swap("F0.1", "F1.1")}}, "F1.1: its input is not there"},
      {"gradient_at_the_turning_point_too_early", v, {{0, Swap("I1.0", "I0.0")}}, "its output gradient is not there"},
  };
}

std::vector<BrokenCase> MessageCases() {
  const PipelineCase line{"one_f_one_b", 2, 3}, v{"zb_v", 1, 2}, mirror{"dualpipe", 2, 2};
  return {
      {"input_not_received", line, {{1, Erase("RF1.1<0")}}, "F1.1: its input is not there"},
      {"gradient_not_received", line, {{0, Erase("RB0.1<1")}}, "B0.1: its output gradient is not there"},
      {"received_after_use", line, {{1, Swap("RF1.0<0", "F1.0")}}, "F1.0: its input is not there"},
      {"not_sent", line, {{0, Erase("SF0.2>1")}}, "deadlock: position 0 waits in RB0.2<1 (action 9); position 1 waits"},
      {"sent_twice", line, {{0, InsertBefore("F0.1", "SF0.0>1")}}, "it is sent twice"},
      {"received_twice", line, {{1, InsertBefore("F1.0", "RF1.0<0")}}, "the next message from there is SF0.1>1"},
      {"sent_before_it_is_made", line, {{0, Swap("F0.0", "SF0.0>1")}}, "it is not made yet"},
      {"gradient_sent_before_it_is_made", line, {{1, Move("SB1.1>0", "B1.1")}}, "it is not made yet"},
      {"sent_to_the_wrong_position", line, {{0, Replace("SF0.1>1", "SF0.1>0")}}, "its reader is at position 1"},
      {"received_from_the_wrong_position", line, {{1, Replace("RF1.1<0", "RF1.1<1")}}, "its maker is at position 0"},
      {"sends_crossed",
       {"gpipe", 2, 2},
       {{0, Swap("SF0.0>1", "SF0.1>1")}, {0, Move("F0.1", "SF0.1>1")}},
       "the next message from there is SF0.1>1"},
      {"receives_crossed", line, {{1, Swap("RF1.0<0", "RF1.1<0")}}, "the next message from there is SF0.0>1"},
      {"sent_but_not_received", line, {{0, Erase("RB0.2<1")}, {0, Erase("B0.2")}}, "SB1.2>0 is never received"},
      {"message_to_itself", v, {{0, InsertBefore("F1.0", "SF0.0>0")}}, "its reader is here"},
      {"receive_from_itself", v, {{0, InsertBefore("F1.0", "RF1.0<0")}}, "its maker is here"},
      {"output_of_the_last_stage_sent", line, {{1, InsertBefore("B1.0", "SF1.0>0")}}, "nobody needs it"},
      {"gradient_of_the_first_stage_sent", line, {{0, InsertBefore("F0.2", "SB0.0>1")}}, "nobody needs it"},
      {"input_of_the_first_stage_received", line, {{0, InsertBefore("F0.0", "RF0.0<1")}}, "nobody makes it"},
      {"gradient_of_the_last_stage_received", line, {{1, InsertBefore("B1.0", "RB1.0<0")}}, "nobody makes it"},
      {"kinds_of_messages_mixed", mirror, {{0, Replace("RB0.0<1", "RF0.0<1")}}, "nobody makes it"},
      {"two_wait_for_each_other", line, {{0, Move("RB0.0<1", "F0.0")}}, "deadlock: position 0 waits in RB0.0<1"},
      {"three_wait_in_a_ring",
       {"interleaved", 3, 3},
       {{0, Move("RF3.0<2", "F0.0")}},
       "deadlock: position 0 waits in RF3.0<2 (action 0); position 1 waits in RF1.0<0 (action 0); position 2 waits in "
       "RF2.0<1 (action 0)"},
  };
}

std::vector<BrokenCase> ReductionCases() {
  const PipelineCase line{"one_f_one_b", 2, 3}, split{"zb_h1", 2, 3}, mirror{"dualpipe", 2, 2};
  return {
      {"reduction_missing", line, {{1, Erase("G1")}}, "position 1: G1 is missing"},
      {"reduction_too_early", split, {{1, Move("G1", "W1.2")}}, "W1.2: its stage is reduced already"},
      {"reduction_twice", line, {{0, Append("G0")}}, "the stage is reduced twice"},
      {"reduction_elsewhere", line, {{0, Append("G1")}}, "the stage is not here"},
      {"reduction_of_no_stage", line, {{0, Append("G7")}}, "the stage is not here"},
      {"reduction_at_one_mirror_only", mirror, {{1, Erase("G1")}}, "deadlock: position 0 waits in G1"},
      {"reductions_crossed",
       mirror,
       {{0, Erase("G0")},
        {0, Erase("G1")},
        {0, Append("G0")},
        {0, Append("G1")},
        {1, Erase("G0")},
        {1, Erase("G1")},
        {1, Append("G1")},
        {1, Append("G0")}},
       "deadlock: position 0 waits in G0"},
  };
}

std::vector<BrokenCase> BrokenCases() {
  std::vector<BrokenCase> all;
  for (const auto& cases : {WorkCases(), MessageCases(), ReductionCases()})
    all.insert(all.end(), cases.begin(), cases.end());
  return all;
}

class BrokenTest : public ::testing::TestWithParam<BrokenCase> {};

TEST_P(BrokenTest, IsFound) {
  const BrokenCase& c = GetParam();
  const Mesh mesh = c.program.mesh();
  const std::vector<int64_t> micro_batches(mesh.directions(), c.program.micro_batches);
  Program program = c.program.program();
  ASSERT_EQ(CheckProgram(program, mesh, micro_batches), absl::OkStatus());
  for (const auto& [position, change] : c.changes) change(program.positions[position]);
  const absl::Status status = CheckProgram(program, mesh, micro_batches);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << ToString(program);
  EXPECT_THAT(status.message(), ::testing::HasSubstr(c.message)) << ToString(program);
}

INSTANTIATE_TEST_SUITE_P(Programs, BrokenTest, ::testing::ValuesIn(BrokenCases()),
                         [](const auto& info) { return info.param.name; });

TEST(BrokenProgramsTest, AreManyAndDifferent) {
  std::set<std::string> names;
  for (const BrokenCase& c : BrokenCases()) EXPECT_TRUE(names.insert(c.name).second) << c.name;
  EXPECT_GE(names.size(), 25);
}

TEST(BrokenProgramsTest, TooFewPositions) {
  Program program = PipelineCase{"one_f_one_b", 2, 1}.program();
  program.positions.pop_back();
  EXPECT_THAT(CheckProgram(program, PipelineCase{"one_f_one_b", 2, 1}.mesh(), {1}).message(),
              ::testing::HasSubstr("the program has 1 positions, the mesh 2"));
}

TEST(BrokenProgramsTest, ADirectionForgotten) {
  const absl::StatusOr<Program> program =
      ParseProgram("0: F0.0 SF0.0>1 RB0.0<1 B0.0 G0 G1\n1: RF1.0<0 F1.0 B1.0 SB1.0>0 G0 G1\n");
  EXPECT_EQ(CheckProgram(*program, PipelineCase{"dualpipe", 2, 1}.mesh(), {1, 1}).message(),
            "position 1: F0.0' is missing");
}

TEST(BrokenProgramsTest, AMicroBatchForgotten) {
  const PipelineCase c{"interleaved", 2, 4};
  EXPECT_EQ(CheckProgram(c.program(), c.mesh(), {5}).message(), "position 0: F0.4 is missing");
}

// Every schedule, every action: taken out, or done twice, it is noticed.
TEST(BrokenProgramsTest, EveryMissingAndEveryRepeatedAction) {
  for (const PipelineCase& c : PipelineCases({1, 2, 4}, {1, 4})) {
    const Program program = c.program();
    const Mesh mesh = c.mesh();
    const std::vector<int64_t> micro_batches(mesh.directions(), c.micro_batches);
    for (size_t p = 0; p < program.positions.size(); ++p) {
      for (size_t i = 0; i < program.positions[p].size(); ++i) {
        const std::string where =
            c.name() + ", position " + std::to_string(p) + ", " + ToString(program.positions[p][i]);
        Program broken = program;
        broken.positions[p].erase(broken.positions[p].begin() + i);
        EXPECT_FALSE(CheckProgram(broken, mesh, micro_batches).ok()) << where << " missing";
        broken = program;
        broken.positions[p].insert(broken.positions[p].begin() + i, program.positions[p][i]);
        EXPECT_FALSE(CheckProgram(broken, mesh, micro_batches).ok()) << where << " twice";
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
