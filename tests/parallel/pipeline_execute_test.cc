// The executor does what a program says: a pipeline of recorded stages gives every stage the right tensors.
#include <deque>
#include <memory>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/execute.h"
#include "tests/parallel/pipeline_testing.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

float ValueOf(ConstView x) { return *x.as<float>(); }
void Set(View x, float value) { *x.as<float>() = value; }

// Output: 10 * input + stage; the first stage starts from the micro-batch. Backward likewise from the other end.
class RecordingStage final : public Stage {
 public:
  RecordingStage(int stage, bool first, bool last, int slots)
      : stage_(stage), first_(first), last_(last), saved_(slots) {}

  void Forward(MicroBatchId id, const MicroBatchTokens&, int slot, ConstView input, View output) override {
    EXPECT_EQ(static_cast<bool>(input), !first_);
    const float x = first_ ? static_cast<float>(id.wave + 1) : ValueOf(input);
    saved_[slot] = id.wave;
    forward += absl::StrCat(x, " ");
    if (!last_) Set(output, 10 * x + static_cast<float>(stage_));
  }
  void BackwardInput(MicroBatchId id, const MicroBatchTokens&, int slot, ConstView d_output, View d_input) override {
    EXPECT_EQ(saved_[slot], id.wave) << "the slot was taken by another micro-batch";
    const float dy = last_ ? static_cast<float>(id.wave + 1) : ValueOf(d_output);
    backward += absl::StrCat(dy, " ");
    if (!first_) Set(d_input, 10 * dy + static_cast<float>(stage_));
  }
  void BackwardWeight(MicroBatchId id, const MicroBatchTokens&, int slot) override {
    EXPECT_EQ(saved_[slot], id.wave) << "the slot was taken by another micro-batch";
    weights += absl::StrCat(id.wave, " ");
  }

  std::string forward, backward, weights;

 private:
  int stage_;
  bool first_, last_;
  std::vector<int64_t> saved_;
};

// Positions run one after the other in turns of one action; messages are queued.
class QueueContext final : public ExecutionContext {
 public:
  QueueContext(int position, std::map<std::pair<int, int>, std::deque<float>>& queues)
      : position_(position), queues_(queues) {}
  MicroBatchId Id(const Work& work) const override { return {0, work.micro_batch}; }
  const MicroBatchTokens& Tokens(const Work&) const override { return tokens_; }
  absl::Status Send(const Action& action, ConstView x) override {
    queues_[{position_, action.peer}].push_back(ValueOf(x));
    return absl::OkStatus();
  }
  absl::Status Receive(const Action& action, View x) override {
    std::deque<float>& queue = queues_[{action.peer, position_}];
    if (queue.empty()) return absl::UnavailableError("nothing there");
    Set(x, queue.front());
    queue.pop_front();
    return absl::OkStatus();
  }
  absl::Status Reduce(StageId stage) override {
    reduced += absl::StrCat(stage.value, " ");
    return absl::OkStatus();
  }
  std::string reduced;

 private:
  int position_;
  std::map<std::pair<int, int>, std::deque<float>>& queues_;
  MicroBatchTokens tokens_;
};

// Memory for the tensors between stages.
struct Buffers {
  View Make() {
    values.push_back(-1);
    return {reinterpret_cast<std::byte*>(&values.back()), DType::kF32, 1, 1};
  }
  std::deque<float> values;
};

TEST(ExecutorTest, OneRankRunsForwardAndBackwardInTurn) {
  RecordingStage stage(0, true, true, 1);
  std::map<StageId, BoundStage> stages;
  stages[StageId(0)] = {&stage, {SlotBuffers()}};
  const Program program = PipelineCase{"one_f_one_b", 1, 3}.program();
  std::map<std::pair<int, int>, std::deque<float>> queues;
  QueueContext context(0, queues);
  const Executor executor(program.positions[0], stages);
  ASSERT_EQ(executor.Run(context), absl::OkStatus());
  EXPECT_EQ(stage.forward, "1 2 3 ");
  EXPECT_EQ(stage.backward, "1 2 3 ");
  EXPECT_EQ(stage.weights, "0 1 2 ");
  EXPECT_EQ(context.reduced, "0 ");
}

// Two stages at one position: tensors pass without messages, also when weight gradients wait.
TEST(ExecutorTest, NeighboursAtOnePositionShareTensors) {
  const auto program = ParseProgram("0: F0.0 F1.0 B1.0 F0.1 F1.1 I0.0 B1.1 W0.0 I0.1 W0.1 G0 G1\n");
  RecordingStage first(0, true, false, 2), second(1, false, true, 2);
  Buffers memory;
  std::map<StageId, BoundStage> stages;
  stages[StageId(0)].stage = &first;
  stages[StageId(1)].stage = &second;
  for (int slot = 0; slot < 2; ++slot) {
    stages[StageId(0)].slots.push_back({View(), memory.Make(), View(), View()});
    stages[StageId(1)].slots.push_back({View(), View(), View(), memory.Make()});
  }
  std::map<std::pair<int, int>, std::deque<float>> queues;
  QueueContext context(0, queues);
  ASSERT_EQ(Executor(program->positions[0], stages).Run(context), absl::OkStatus());
  EXPECT_EQ(second.forward, "10 20 ");
  EXPECT_EQ(first.backward, "11 21 ");
  EXPECT_EQ(first.weights, "0 1 ");
}

// Position 1 runs after position 0 has sent all: possible since M forwards fit before the first backward.
TEST(ExecutorTest, TwoPositionsExchangeByMessages) {
  const auto program = ParseProgram(
      "0: F0.0 SF0.0>1 F0.1 SF0.1>1\n"
      "1: RF1.0<0 F1.0 B1.0 SB1.0>0 RF1.1<0 F1.1 B1.1 SB1.1>0 G1\n"
      "2: RB0.0<1 B0.0 RB0.1<1 B0.1 G0\n");
  std::vector<Action> head = program->positions[0], tail = program->positions[2];
  RecordingStage first(0, true, false, 2), second(1, false, true, 1);
  Buffers memory;
  std::map<StageId, BoundStage> stages0, stages1;
  stages0[StageId(0)].stage = &first;
  for (int slot = 0; slot < 2; ++slot) {
    stages0[StageId(0)].slots.push_back({View(), memory.Make(), memory.Make(), View()});
  }
  stages1[StageId(1)] = {&second, {{memory.Make(), View(), View(), memory.Make()}}};
  std::map<std::pair<int, int>, std::deque<float>> queues;
  QueueContext context0(0, queues), context1(1, queues);
  // The whole list of position 0 stops where its first message is not there yet.
  std::vector<Action> whole = head;
  whole.insert(whole.end(), tail.begin(), tail.end());
  EXPECT_THAT(Executor(whole, stages0).Run(context0).message(), HasSubstr("RB0.0<1: nothing there"));
  ASSERT_EQ(Executor(program->positions[1], stages1).Run(context1), absl::OkStatus());
  EXPECT_EQ(second.forward, "10 20 ");
  ASSERT_EQ((queues[{1, 0}]), (std::deque<float>{11, 21}));
}

}  // namespace
}  // namespace shoestring
