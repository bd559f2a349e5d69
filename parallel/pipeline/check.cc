// Runs a program on paper: positions advance in turn, messages wait in queues, every rule is checked as it is reached.
#include "parallel/pipeline/check.h"

#include <deque>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

// What has happened at one position.
struct PositionState {
  size_t next = 0;
  std::set<Work> forward, backward_input, backward_weight;  // done
  std::set<Work> input, output_gradient;                    // received
  std::set<Work> sent_output, sent_gradient;
  std::set<StageId> reduced;
};

class PaperRun {
 public:
  PaperRun(const Program& program, const Mesh& mesh, const std::vector<int64_t>& micro_batches)
      : program_(program), mesh_(mesh), micro_batches_(micro_batches), states_(program.positions.size()) {}

  absl::Status Run();

 private:
  enum class Progress { kDone, kWaits };

  absl::Status Advance(int position, bool* moved);
  absl::StatusOr<Progress> Do(int position, const Action& action);
  absl::Status CheckPlace(int position, const Work& work) const;
  absl::Status Forward(int position, const Work& work);
  absl::Status BackwardInput(int position, const Work& work);
  absl::Status BackwardWeight(int position, const Work& work);
  absl::Status Send(int position, const Action& action);
  absl::StatusOr<Progress> Receive(int position, const Action& action);
  absl::StatusOr<Progress> Reduce(int position, StageId stage);
  absl::Status CheckComplete() const;
  absl::Status CheckCompleteStage(StageId stage, Direction direction) const;
  absl::Status Deadlock() const;
  bool IsHere(int position, const Work& work) const {
    return mesh_.StagePosition(work.stage, work.direction) == position;
  }
  bool IsLast(const Work& work) const { return work.stage.value == mesh_.stages() - 1; }

  const Program& program_;
  const Mesh& mesh_;
  const std::vector<int64_t>& micro_batches_;
  std::vector<PositionState> states_;
  std::map<std::tuple<int, int, ActionKind>, std::deque<Action>> channels_;  // (from, to, send): under way
  std::map<StageId, std::set<int>> at_reduction_;                            // positions that have come to it
};

absl::Status Wrong(absl::string_view reason) { return absl::FailedPreconditionError(reason); }

absl::Status PaperRun::Run() {
  if (static_cast<int>(program_.positions.size()) != mesh_.pipeline_ranks()) {
    return Wrong(
        absl::StrCat("the program has ", program_.positions.size(), " positions, the mesh ", mesh_.pipeline_ranks()));
  }
  CHECK_EQ(static_cast<int>(micro_batches_.size()), mesh_.directions());
  bool moved = true;
  while (moved) {
    moved = false;
    for (size_t p = 0; p < states_.size(); ++p) RETURN_IF_ERROR(Advance(static_cast<int>(p), &moved));
  }
  for (size_t p = 0; p < states_.size(); ++p) {
    if (states_[p].next < program_.positions[p].size()) return Deadlock();
  }
  for (const auto& [channel, queue] : channels_) {
    if (!queue.empty()) {
      return Wrong(
          absl::StrCat("position ", std::get<0>(channel), ": ", ToString(queue.front()), " is never received"));
    }
  }
  return CheckComplete();
}

absl::Status PaperRun::Advance(int position, bool* moved) {
  PositionState& state = states_[position];
  const std::vector<Action>& actions = program_.positions[position];
  for (; state.next < actions.size(); ++state.next) {
    absl::StatusOr<Progress> progress = Do(position, actions[state.next]);
    if (!progress.ok()) {
      return WithContext(progress.status(), absl::StrCat("position ", position, ", action ", state.next, ", ",
                                                         ToString(actions[state.next])));
    }
    if (*progress == Progress::kWaits) return absl::OkStatus();
    *moved = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<PaperRun::Progress> PaperRun::Do(int position, const Action& action) {
  if (action.kind != ActionKind::kReduce) RETURN_IF_ERROR(CheckPlace(position, action.work));
  switch (action.kind) {
    case ActionKind::kForward: RETURN_IF_ERROR(Forward(position, action.work)); break;
    case ActionKind::kBackward:
      RETURN_IF_ERROR(BackwardInput(position, action.work));
      RETURN_IF_ERROR(BackwardWeight(position, action.work));
      break;
    case ActionKind::kBackwardInput: RETURN_IF_ERROR(BackwardInput(position, action.work)); break;
    case ActionKind::kBackwardWeight: RETURN_IF_ERROR(BackwardWeight(position, action.work)); break;
    case ActionKind::kOverlapped:
      // Both halves run at once, so the backward must not need this forward.
      RETURN_IF_ERROR(CheckPlace(position, action.paired));
      RETURN_IF_ERROR(BackwardInput(position, action.paired));
      RETURN_IF_ERROR(BackwardWeight(position, action.paired));
      RETURN_IF_ERROR(Forward(position, action.work));
      break;
    case ActionKind::kSendForward:
    case ActionKind::kSendBackward: RETURN_IF_ERROR(Send(position, action)); break;
    case ActionKind::kReceiveForward:
    case ActionKind::kReceiveBackward: return Receive(position, action);
    case ActionKind::kReduce: return Reduce(position, action.work.stage);
  }
  return Progress::kDone;
}

absl::Status PaperRun::CheckPlace(int position, const Work& work) const {
  if (work.stage.value >= mesh_.stages()) return Wrong(absl::StrCat("there are ", mesh_.stages(), " stages"));
  if (work.direction.value >= mesh_.directions()) return Wrong("the pipeline has one direction");
  if (work.micro_batch >= micro_batches_[work.direction.value]) {
    return Wrong(absl::StrCat("there are ", micro_batches_[work.direction.value], " micro-batches"));
  }
  if (!IsHere(position, work)) {
    return Wrong(
        absl::StrCat("stage ", work.stage.value, " is at position ", mesh_.StagePosition(work.stage, work.direction)));
  }
  return absl::OkStatus();
}

absl::Status PaperRun::Forward(int position, const Work& work) {
  PositionState& state = states_[position];
  if (work.stage.value > 0) {
    const Work before = Neighbour(work, -1);
    const bool ready = IsHere(position, before) ? state.forward.count(before) > 0 : state.input.count(work) > 0;
    if (!ready) return Wrong("its input is not there");
  }
  if (!state.forward.insert(work).second) return Wrong("the forward is done twice");
  return absl::OkStatus();
}

absl::Status PaperRun::BackwardInput(int position, const Work& work) {
  PositionState& state = states_[position];
  if (state.forward.count(work) == 0) return Wrong("its forward is not done");
  if (!IsLast(work)) {
    const Work after = Neighbour(work, 1);
    const bool ready =
        IsHere(position, after) ? state.backward_input.count(after) > 0 : state.output_gradient.count(work) > 0;
    if (!ready) return Wrong("its output gradient is not there");
  }
  if (!state.backward_input.insert(work).second) return Wrong("the backward is done twice");
  return absl::OkStatus();
}

absl::Status PaperRun::BackwardWeight(int position, const Work& work) {
  PositionState& state = states_[position];
  if (state.backward_input.count(work) == 0) return Wrong("its input gradients are not done");
  if (state.reduced.count(work.stage) > 0) return Wrong("its stage is reduced already");
  if (state.backward_weight.count(work) > 0) return Wrong("the weight gradients are done twice");
  if (work.micro_batch > 0 && state.backward_weight.count({work.stage, work.micro_batch - 1, work.direction}) == 0) {
    return Wrong(absl::StrCat("the weight gradients of micro-batch ", work.micro_batch - 1, " are to be added before"));
  }
  state.backward_weight.insert(work);
  return absl::OkStatus();
}

absl::Status PaperRun::Send(int position, const Action& action) {
  PositionState& state = states_[position];
  const bool forward = action.kind == ActionKind::kSendForward;
  if (forward ? IsLast(action.work) : action.work.stage.value == 0) return Wrong("nobody needs it");
  const Work reader = Neighbour(action.work, forward ? 1 : -1);
  const int to = mesh_.StagePosition(reader.stage, reader.direction);
  if (to == position) return Wrong("its reader is here");
  if (to != action.peer) return Wrong(absl::StrCat("its reader is at position ", to));
  if ((forward ? state.forward : state.backward_input).count(action.work) == 0) return Wrong("it is not made yet");
  if (!(forward ? state.sent_output : state.sent_gradient).insert(action.work).second) return Wrong("it is sent twice");
  channels_[{position, to, action.kind}].push_back(action);
  return absl::OkStatus();
}

absl::StatusOr<PaperRun::Progress> PaperRun::Receive(int position, const Action& action) {
  const bool forward = action.kind == ActionKind::kReceiveForward;
  if (forward ? action.work.stage.value == 0 : IsLast(action.work)) return Wrong("nobody makes it");
  const Work maker = Neighbour(action.work, forward ? -1 : 1);
  const int from = mesh_.StagePosition(maker.stage, maker.direction);
  if (from == position) return Wrong("its maker is here");
  if (from != action.peer) return Wrong(absl::StrCat("its maker is at position ", from));
  const ActionKind send = forward ? ActionKind::kSendForward : ActionKind::kSendBackward;
  std::deque<Action>& queue = channels_[{from, position, send}];
  if (queue.empty()) return Progress::kWaits;
  const Action& message = queue.front();
  if (!(message.work == maker)) return Wrong(absl::StrCat("the next message from there is ", ToString(message)));
  queue.pop_front();
  PositionState& state = states_[position];
  (forward ? state.input : state.output_gradient).insert(action.work);
  return Progress::kDone;
}

absl::StatusOr<PaperRun::Progress> PaperRun::Reduce(int position, StageId stage) {
  std::set<int> holders;
  for (int d = 0; stage.value < mesh_.stages() && d < mesh_.directions(); ++d) {
    holders.insert(mesh_.StagePosition(stage, Direction(d)));
  }
  if (holders.count(position) == 0) return Wrong("the stage is not here");
  if (states_[position].reduced.count(stage) > 0) return Wrong("the stage is reduced twice");
  at_reduction_[stage].insert(position);
  if (at_reduction_[stage] != holders) return Progress::kWaits;
  states_[position].reduced.insert(stage);
  return Progress::kDone;
}

absl::Status PaperRun::CheckCompleteStage(StageId stage, Direction direction) const {
  const int position = mesh_.StagePosition(stage, direction);
  const PositionState& state = states_[position];
  const auto missing = [&](absl::string_view what, const Work& work) {
    return Wrong(absl::StrCat("position ", position, ": ", what, ToString(work), " is missing"));
  };
  for (int64_t m = 0; m < micro_batches_[direction.value]; ++m) {
    const Work work{stage, m, direction};
    if (state.forward.count(work) == 0) return missing("F", work);
    if (state.backward_input.count(work) == 0) return missing("B", work);
    if (state.backward_weight.count(work) == 0) return missing("W", work);
  }
  if (state.reduced.count(stage) == 0) {
    return Wrong(absl::StrCat("position ", position, ": G", stage.value, " is missing"));
  }
  return absl::OkStatus();
}

absl::Status PaperRun::CheckComplete() const {
  for (int s = 0; s < mesh_.stages(); ++s) {
    for (int d = 0; d < mesh_.directions(); ++d) {
      RETURN_IF_ERROR(CheckCompleteStage(StageId(s), Direction(d)));
    }
  }
  return absl::OkStatus();
}

absl::Status PaperRun::Deadlock() const {
  std::string text = "deadlock:";
  for (size_t p = 0; p < states_.size(); ++p) {
    if (states_[p].next >= program_.positions[p].size()) continue;
    absl::StrAppend(&text, " position ", p, " waits in ", ToString(program_.positions[p][states_[p].next]), " (action ",
                    states_[p].next, ");");
  }
  text.pop_back();
  return Wrong(text);
}

// Calls fn(work, source) for every micro-batch whose slot an action touches; `source` is the neighbour that it reads.
template <typename Fn>
void ForEachTouch(const Action& action, Fn fn) {
  switch (action.kind) {
    case ActionKind::kForward: fn(action.work, Neighbour(action.work, -1)); break;
    case ActionKind::kBackward:
    case ActionKind::kBackwardInput: fn(action.work, Neighbour(action.work, 1)); break;
    case ActionKind::kOverlapped:
      fn(action.work, Neighbour(action.work, -1));
      fn(action.paired, Neighbour(action.paired, 1));
      break;
    case ActionKind::kReduce: break;
    default: fn(action.work, action.work);
  }
}

// Slots of each stage, the lowest free one first.
class SlotPool {
 public:
  int Take(StageId stage) {
    std::vector<bool>& taken = taken_[stage];
    size_t slot = 0;
    while (slot < taken.size() && taken[slot]) ++slot;
    if (slot == taken.size()) taken.push_back(false);
    taken[slot] = true;
    return static_cast<int>(slot);
  }
  void GiveBack(StageId stage, int slot) { taken_[stage][slot] = false; }
  std::map<StageId, int> Sizes() const {
    std::map<StageId, int> sizes;
    for (const auto& [stage, taken] : taken_) sizes[stage] = static_cast<int>(taken.size());
    return sizes;
  }

 private:
  std::map<StageId, std::vector<bool>> taken_;
};

}  // namespace

absl::Status CheckProgram(const Program& program, const Mesh& mesh, const std::vector<int64_t>& micro_batches) {
  return PaperRun(program, mesh, micro_batches).Run();
}

SlotPlan PlanSlots(const std::vector<Action>& actions) {
  std::map<Work, size_t> last_touch;
  for (size_t i = 0; i < actions.size(); ++i) {
    ForEachTouch(actions[i], [&](const Work& work, const Work& source) {
      last_touch[work] = i;
      if (auto it = last_touch.find(source); it != last_touch.end()) it->second = i;
    });
  }
  SlotPlan plan;
  SlotPool pool;
  std::map<Work, int> live;
  const auto slot_of = [&](const Work& work) {
    const auto it = live.find(work);
    return it == live.end() ? -1 : it->second;
  };
  for (size_t i = 0; i < actions.size(); ++i) {
    SlotPlan::Slots& slots = plan.actions.emplace_back();
    ForEachTouch(actions[i], [&](const Work& work, const Work& source) {
      const auto [it, fresh] = live.try_emplace(work, -1);
      if (fresh) it->second = pool.Take(work.stage);
      const bool is_paired = slots.work >= 0;
      (is_paired ? slots.paired : slots.work) = it->second;
      (is_paired ? slots.paired_source : slots.work_source) = source == work ? -1 : slot_of(source);
    });
    for (auto it = live.begin(); it != live.end();) {
      const bool ends = last_touch.at(it->first) == i;
      if (ends) pool.GiveBack(it->first.stage, it->second);
      it = ends ? live.erase(it) : std::next(it);
    }
  }
  plan.live = pool.Sizes();
  return plan;
}

}  // namespace shoestring
