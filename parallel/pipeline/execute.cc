// One action after the other.
#include "parallel/pipeline/execute.h"

#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {

Executor::Executor(const std::vector<Action>& actions, const std::map<StageId, BoundStage>& stages)
    : actions_(actions), stages_(stages), plan_(PlanSlots(actions)) {
  for (const auto& [id, slots] : plan_.live) CHECK_GE(static_cast<int>(StageOf(id).slots.size()), slots);
}

absl::Status Executor::Run(ExecutionContext& context) const {
  for (size_t i = 0; i < actions_.size(); ++i) {
    context.Started(actions_[i]);
    absl::Status status = RunAction(actions_[i], plan_.actions[i], context);
    if (status.ok()) status = context.Finished(actions_[i]);
    if (!status.ok()) return WithContext(status, ToString(actions_[i]));
  }
  return absl::OkStatus();
}

absl::Status Executor::RunAction(const Action& action, const SlotPlan::Slots& slots, ExecutionContext& context) const {
  const StageId stage = action.work.stage;
  switch (action.kind) {
    case ActionKind::kForward:
      StartForward(action.work, slots.work, slots.work_source, context);
      while (StageOf(stage).stage->StepForward()) {
      }
      break;
    case ActionKind::kBackward:
    case ActionKind::kBackwardInput:
      StartBackwardInput(action.work, slots.work, slots.work_source, context);
      while (StageOf(stage).stage->StepBackwardInput()) {
      }
      if (action.kind == ActionKind::kBackward) BackwardWeight(action.work, slots.work, context);
      break;
    case ActionKind::kBackwardWeight: BackwardWeight(action.work, slots.work, context); break;
    case ActionKind::kOverlapped: Overlap(action, slots, context); break;
    case ActionKind::kSendForward: return context.Send(action, Buffers(stage, slots.work).output);
    case ActionKind::kSendBackward: return context.Send(action, Buffers(stage, slots.work).d_input);
    case ActionKind::kReceiveForward: return context.Receive(action, Buffers(stage, slots.work).input);
    case ActionKind::kReceiveBackward: return context.Receive(action, Buffers(stage, slots.work).d_output);
    case ActionKind::kReduce: return context.Reduce(stage);
  }
  return absl::OkStatus();
}

// Piece by piece in turn: what one sends travels while the other computes. The order is the same on all ranks of the
// position, which exchange with each other.
void Executor::Overlap(const Action& action, const SlotPlan::Slots& slots, ExecutionContext& context) const {
  Stage& forward = *StageOf(action.work.stage).stage;
  Stage& backward = *StageOf(action.paired.stage).stage;
  StartForward(action.work, slots.work, slots.work_source, context);
  StartBackwardInput(action.paired, slots.paired, slots.paired_source, context);
  for (bool more = true; more;) {
    more = backward.StepBackwardInput();
    more = forward.StepForward() || more;
  }
  BackwardWeight(action.paired, slots.paired, context);
}

void Executor::StartForward(const Work& work, int slot, int source_slot, ExecutionContext& context) const {
  const SlotBuffers& buffers = Buffers(work.stage, slot);
  const View input = source_slot < 0 ? buffers.input : Buffers(StageId(work.stage.value - 1), source_slot).output;
  StageOf(work.stage).stage->StartForward(context.Id(work), context.Tokens(work), slot, input, buffers.output);
}

void Executor::StartBackwardInput(const Work& work, int slot, int source_slot, ExecutionContext& context) const {
  const SlotBuffers& buffers = Buffers(work.stage, slot);
  const View d_output =
      source_slot < 0 ? buffers.d_output : Buffers(StageId(work.stage.value + 1), source_slot).d_input;
  StageOf(work.stage)
      .stage->StartBackwardInput(context.Id(work), context.Tokens(work), slot, d_output, buffers.d_input);
}

void Executor::BackwardWeight(const Work& work, int slot, ExecutionContext& context) const {
  StageOf(work.stage).stage->BackwardWeight(context.Id(work), context.Tokens(work), slot);
}

const BoundStage& Executor::StageOf(StageId id) const {
  const auto it = stages_.find(id);
  CHECK(it != stages_.end());
  return it->second;
}

}  // namespace shoestring
