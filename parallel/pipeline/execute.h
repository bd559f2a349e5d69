// Runs the actions of one pipeline position: a dumb switch that knows neither layers nor schedules.
#pragma once

#include <map>
#include <vector>

#include "absl/status/status.h"
#include "kernels/tensor.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/program.h"
#include "parallel/stage.h"

namespace shoestring {

// What crosses a stage's ends for the micro-batch of one slot, each [T, D] in the activation dtype. Empty where the
// model ends, and where the neighbouring stage is at the same position (which then owns the tensor).
struct SlotBuffers {
  View input;     // received
  View output;    // made by forward
  View d_output;  // received
  View d_input;   // made by backward
};

// A stage that the position holds, with at least as many slots as SlotPlan::live says. `stage` outlives the executor.
struct BoundStage {
  Stage* stage = nullptr;
  std::vector<SlotBuffers> slots;
};

// What the executor asks of its surroundings.
class ExecutionContext {
 public:
  virtual ~ExecutionContext() = default;
  virtual MicroBatchId Id(const Work& work) const = 0;
  virtual const MicroBatchTokens& Tokens(const Work& work) const = 0;
  // Sends do not wait for their receive; `x` may be written again when the call returns.
  virtual absl::Status Send(const Action& action, ConstView x) = 0;
  virtual absl::Status Receive(const Action& action, View x) = 0;
  // All weight gradients of the stage are in their accumulators.
  virtual absl::Status Reduce(StageId stage) = 0;
  // Around each action. An error of Finished ends the run as one of the action would.
  virtual void Started(const Action&) {}
  virtual absl::Status Finished(const Action&) { return absl::OkStatus(); }
};

// Keeps references; run it as often as there are steps. Allocates nothing in Run.
class Executor {
 public:
  Executor(const std::vector<Action>& actions, const std::map<StageId, BoundStage>& stages);

  // Stops at the first error of the context, which is returned with the action's text in front.
  absl::Status Run(ExecutionContext& context) const;

 private:
  absl::Status RunAction(const Action& action, const SlotPlan::Slots& slots, ExecutionContext& context) const;
  void StartForward(const Work& work, int slot, int source_slot, ExecutionContext& context) const;
  void StartBackwardInput(const Work& work, int slot, int source_slot, ExecutionContext& context) const;
  void BackwardWeight(const Work& work, int slot, ExecutionContext& context) const;
  void Overlap(const Action& action, const SlotPlan::Slots& slots, ExecutionContext& context) const;
  const BoundStage& StageOf(StageId id) const;
  const SlotBuffers& Buffers(StageId id, int slot) const { return StageOf(id).slots[slot]; }

  const std::vector<Action>& actions_;
  const std::map<StageId, BoundStage>& stages_;
  SlotPlan plan_;
};

}  // namespace shoestring
