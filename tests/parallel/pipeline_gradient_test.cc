// Every schedule, executed on threads that only exchange messages, computes what the model computes in one piece:
// losses, outputs and gradients to the last bit. Among them the oracles of DualPipe's own example tests
// (deepseek-ai/DualPipe, examples/example_dualpipe.py and example_dualpipev.py): 20 micro-batches, even numbers of
// positions, losses equal to the sequential reference's, gradients after the sum over mirrored stages.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/execute.h"
#include "tests/parallel/pipeline_testing.h"
#include "tests/parallel/toy_stage.h"

namespace shoestring {
namespace {

// What travels between positions: one queue a channel (sender, receiver, forward or backward).
class Wires {
 public:
  struct Message {
    Work made;
    Matrix values;
  };
  void Send(int from, int to, ActionKind kind, Message message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    queues_[{from, to, kind}].push_back(std::move(message));
    changed_.notify_all();
  }
  // DEADLINE_EXCEEDED after half a minute.
  absl::Status Receive(int from, int to, ActionKind kind, Message& message) {
    std::unique_lock<std::mutex> lock(mutex_);
    std::deque<Message>& queue = queues_[{from, to, kind}];
    if (!changed_.wait_for(lock, std::chrono::seconds(30), [&] { return !queue.empty(); })) {
      return absl::DeadlineExceededError("no message");
    }
    message = std::move(queue.front());
    queue.pop_front();
    return absl::OkStatus();
  }
  bool empty() const {
    return std::all_of(queues_.begin(), queues_.end(), [](const auto& entry) { return entry.second.empty(); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::tuple<int, int, ActionKind>, std::deque<Message>> queues_;
};

class ThreadContext final : public ExecutionContext {
 public:
  ThreadContext(int position, Wires& wires) : position_(position), wires_(wires) {}
  MicroBatchId Id(const Work& work) const override { return {work.direction.value, work.micro_batch}; }
  const MicroBatchTokens& Tokens(const Work&) const override { return tokens_; }
  absl::Status Send(const Action& action, ConstView x) override {
    wires_.Send(position_, action.peer, action.kind,
                {action.work, Matrix(x.as<double>(), x.as<double>() + x.elements())});
    return absl::OkStatus();
  }
  absl::Status Receive(const Action& action, View x) override {
    const bool forward = action.kind == ActionKind::kReceiveForward;
    Wires::Message message;
    const ActionKind kind = forward ? ActionKind::kSendForward : ActionKind::kSendBackward;
    if (absl::Status status = wires_.Receive(action.peer, position_, kind, message); !status.ok()) return status;
    if (!(message.made == Neighbour(action.work, forward ? -1 : 1))) {
      return absl::InternalError(absl::StrCat("received ", ToString(message.made)));
    }
    std::copy(message.values.begin(), message.values.end(), x.as<double>());
    return absl::OkStatus();
  }
  absl::Status Reduce(StageId stage) override {
    ++reduced[stage];
    return absl::OkStatus();
  }

  std::map<StageId, int> reduced;

 private:
  const int position_;
  Wires& wires_;
  MicroBatchTokens tokens_;
};

// One position: its stages with their gradients, and memory for what crosses their ends.
class Position {
 public:
  Position(const PipelineCase& c, const ToyShape& shape, const std::vector<ToyWeights>& weights,
           const std::vector<Action>& actions, int position) {
    const Mesh mesh = c.mesh();
    for (const auto& [id, slots] : PlanSlots(actions).live) {
      const bool first = id.value == 0, last = id.value == mesh.stages() - 1;
      stages[id] = std::make_unique<ToyStage>(shape, weights[id.value], first, last, slots);
      int direction = 0;
      while (mesh.StagePosition(id, Direction(direction)) != position) ++direction;
      const auto elsewhere = [&](int step) {
        return mesh.StagePosition(StageId(id.value + step), Direction(direction)) != position;
      };
      BoundStage& bound = bound_[id];
      bound.stage = stages[id].get();
      for (int slot = 0; slot < slots; ++slot) {
        SlotBuffers buffers;
        if (!first && elsewhere(-1)) buffers.input = Make(shape);
        if (!last) buffers.output = Make(shape);
        if (!last && elsewhere(1)) buffers.d_output = Make(shape);
        if (!first) buffers.d_input = Make(shape);
        bound.slots.push_back(buffers);
      }
    }
    executor_ = std::make_unique<Executor>(actions, bound_);
  }

  absl::Status Run(ThreadContext& context) { return executor_->Run(context); }

  std::map<StageId, std::unique_ptr<ToyStage>> stages;

 private:
  View Make(const ToyShape& shape) {
    memory_.emplace_back(shape.rows * shape.width, std::numeric_limits<double>::quiet_NaN());
    return {reinterpret_cast<std::byte*>(memory_.back().data()), DType::kF64, shape.rows, shape.width};
  }

  std::deque<Matrix> memory_;
  std::map<StageId, BoundStage> bound_;
  std::unique_ptr<Executor> executor_;
};

// The model in one piece, micro-batch after micro-batch; gradients of each direction for themselves.
std::vector<std::unique_ptr<ToyStage>> RunSequentially(const ToyShape& shape, const std::vector<ToyWeights>& weights,
                                                       int direction, int64_t micro_batches) {
  const int last = static_cast<int>(weights.size()) - 1;
  std::vector<std::unique_ptr<ToyStage>> stages;
  std::vector<Matrix> between(weights.size(), Matrix(shape.rows * shape.width));
  const auto view = [&](int i) {
    return View(reinterpret_cast<std::byte*>(between[i].data()), DType::kF64, shape.rows, shape.width);
  };
  for (int s = 0; s <= last; ++s) {
    stages.push_back(std::make_unique<ToyStage>(shape, weights[s], s == 0, s == last, 1));
  }
  for (int64_t m = 0; m < micro_batches; ++m) {
    const MicroBatchId id{direction, m};
    for (int s = 0; s <= last; ++s) {
      stages[s]->Forward(id, {}, 0, s == 0 ? View() : view(s - 1), s == last ? View() : view(s));
    }
    for (int s = last; s >= 0; --s) {
      stages[s]->BackwardInput(id, {}, 0, s == last ? View() : view(s), s == 0 ? View() : view(s - 1));
      stages[s]->BackwardWeight(id, {}, 0);
    }
  }
  return stages;
}

Matrix Sum(const Matrix& a, const Matrix& b) {
  Matrix sum = a;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += b[i];
  return sum;
}

// Executes the program of a case and compares everything with the sequential model.
void ExpectEqualToSequential(const PipelineCase& c, const ToyShape& shape) {
  SCOPED_TRACE(c.name());
  const Mesh mesh = c.mesh();
  const Program program = c.program();
  std::vector<ToyWeights> weights;
  for (int s = 0; s < mesh.stages(); ++s) weights.push_back(RandomToyWeights(shape, s));

  Wires wires;
  std::vector<std::unique_ptr<Position>> positions;
  std::vector<std::unique_ptr<ThreadContext>> contexts;
  for (int p = 0; p < c.positions; ++p) {
    positions.push_back(std::make_unique<Position>(c, shape, weights, program.positions[p], p));
    contexts.push_back(std::make_unique<ThreadContext>(p, wires));
  }
  std::vector<absl::Status> statuses(c.positions);
  std::vector<std::thread> threads;
  for (int p = 0; p < c.positions; ++p) {
    threads.emplace_back([&, p] { statuses[p] = positions[p]->Run(*contexts[p]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) ASSERT_EQ(status, absl::OkStatus());
  EXPECT_TRUE(wires.empty());

  const auto stage_of = [&](int stage, int direction) -> const ToyStage& {
    return *positions[mesh.StagePosition(StageId(stage), Direction(direction))]->stages.at(StageId(stage));
  };
  std::vector<std::vector<std::unique_ptr<ToyStage>>> reference;
  for (int d = 0; d < mesh.directions(); ++d) {
    reference.push_back(RunSequentially(shape, weights, d, c.micro_batches));
    const int last = mesh.stages() - 1;
    EXPECT_EQ(stage_of(last, d).losses(), reference[d][last]->losses());
    EXPECT_EQ(stage_of(last, d).outputs(), reference[d][last]->outputs());
  }
  for (int s = 0; s < mesh.stages(); ++s) {
    ToyWeights mine = stage_of(s, 0).gradients(), theirs = reference[0][s]->gradients();
    if (mesh.directions() == 2) {
      mine = {Sum(mine.up, stage_of(s, 1).gradients().up), Sum(mine.down, stage_of(s, 1).gradients().down)};
      theirs = {Sum(theirs.up, reference[1][s]->gradients().up), Sum(theirs.down, reference[1][s]->gradients().down)};
    }
    EXPECT_EQ(mine.up, theirs.up) << "stage " << s;
    EXPECT_EQ(mine.down, theirs.down) << "stage " << s;
    EXPECT_GT(*std::max_element(mine.up.begin(), mine.up.end()), 0.0);
    for (int d = 0; d < mesh.directions(); ++d) {
      EXPECT_EQ(contexts[mesh.StagePosition(StageId(s), Direction(d))]->reduced[StageId(s)], 1);
    }
  }
}

TEST(PipelineGradientTest, EveryScheduleEqualsTheSequentialModel) {
  for (const PipelineCase& c : PipelineCases({1, 2, 4, 8}, {1, 2, 3, 4, 5, 8, 16})) ExpectEqualToSequential(c, {});
}

TEST(PipelineGradientTest, DualPipeExample) {
  for (const int positions : {8, 6, 4, 2}) ExpectEqualToSequential({"dualpipe", positions, 10}, {3, 8, 32});
}

TEST(PipelineGradientTest, DualPipeVExample) {
  for (const int positions : {8, 7, 6, 5, 4, 3, 2, 1})
    ExpectEqualToSequential({"dualpipe_v", positions, 20}, {3, 8, 32});
}

// The oracle itself: gradients of the sequential model are the slopes of its loss.
TEST(PipelineGradientTest, TheSequentialModelHasRightGradients) {
  const ToyShape shape{2, 3, 5};
  std::vector<ToyWeights> weights = {RandomToyWeights(shape, 0), RandomToyWeights(shape, 1),
                                     RandomToyWeights(shape, 2)};
  const auto reference = RunSequentially(shape, weights, 0, 2);
  const auto loss = [&] {
    double sum = 0.0;
    const auto stages = RunSequentially(shape, weights, 0, 2);
    for (const double x : stages[2]->losses()) sum += x;
    return sum;
  };
  constexpr double kStep = 1e-5;
  for (int s = 0; s < 3; ++s) {
    for (const auto member : {&ToyWeights::up, &ToyWeights::down}) {
      for (size_t i = 0; i < (weights[s].*member).size(); i += 4) {
        double& weight = (weights[s].*member)[i];
        const double before = weight;
        weight = before + kStep;
        const double above = loss();
        weight = before - kStep;
        const double below = loss();
        weight = before;
        EXPECT_NEAR((reference[s]->gradients().*member)[i], (above - below) / (2 * kStep), 1e-8);
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
