// Positions advance in turn, each on its own clock.
#include "parallel/pipeline/rewrite.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"

namespace shoestring {
namespace {

class WeightDeferral {
 public:
  WeightDeferral(const Program& program, const Mesh& mesh, int max_live)
      : program_(program), mesh_(mesh), max_live_(max_live), states_(program.positions.size()) {
    result_.positions.resize(program.positions.size());
  }

  Program Run() {
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t p = 0; p < states_.size(); ++p) {
        while (Advance(p)) moved = true;
      }
    }
    for (size_t p = 0; p < states_.size(); ++p) {
      CHECK_EQ(states_[p].next, program_.positions[p].size());
      while (!states_[p].waiting.empty()) Weights(p);
    }
    return std::move(result_);
  }

 private:
  struct State {
    size_t next = 0;
    int64_t clock = 0;
    int live = 0;
    std::deque<Work> waiting;  // weight gradients, oldest first
  };

  void Emit(size_t position, const Action& action, int64_t duration) {
    result_.positions[position].push_back(action);
    states_[position].clock += duration;
  }

  void Weights(size_t position) {
    State& state = states_[position];
    Emit(position, {ActionKind::kBackwardWeight, state.waiting.front(), {}, -1}, 1);
    state.waiting.pop_front();
    --state.live;
  }

  // When what the action reads is there; nothing if that is not known yet.
  std::optional<int64_t> ReadyAt(const Parts& parts) const {
    int64_t ready = 0;
    const auto wait_for = [&](const std::map<Work, int64_t>& done, const Work& work) {
      const auto it = done.find(work);
      if (it == done.end()) return false;
      ready = std::max(ready, it->second);
      return true;
    };
    if (parts.forward != nullptr && parts.forward->stage.value > 0 &&
        !wait_for(forward_done_, Neighbour(*parts.forward, -1))) {
      return std::nullopt;
    }
    if (parts.backward_input != nullptr && parts.backward_input->stage.value < mesh_.stages() - 1 &&
        !wait_for(gradient_done_, Neighbour(*parts.backward_input, 1))) {
      return std::nullopt;
    }
    return ready;
  }

  // A forward has no room, or an overlapped pair would add a later weight gradient of its chunk before an older one.
  bool MustCatchUp(const State& state, const Parts& parts) const {
    if (parts.forward == nullptr) return false;
    if (state.live >= max_live_) return true;
    return parts.backward_weight != nullptr &&
           std::any_of(state.waiting.begin(), state.waiting.end(), [&](const Work& work) {
             return work.stage == parts.backward_weight->stage && work.direction == parts.backward_weight->direction;
           });
  }

  bool Advance(size_t position) {
    State& state = states_[position];
    if (state.next == program_.positions[position].size()) return false;
    const Action& action = program_.positions[position][state.next];
    const Parts parts = PartsOf(action);
    if (parts.forward != nullptr || parts.backward_input != nullptr) {
      const std::optional<int64_t> ready = ReadyAt(parts);
      if (!ready.has_value()) return false;
      while (!state.waiting.empty() && (state.clock < *ready || MustCatchUp(state, parts))) Weights(position);
      state.clock = std::max(state.clock, *ready);
      Do(position, action, parts);
    }
    ++state.next;
    return true;
  }

  void Do(size_t position, const Action& action, const Parts& parts) {
    State& state = states_[position];
    if (action.kind == ActionKind::kOverlapped) {
      Emit(position, action, 3);
    } else if (parts.forward != nullptr) {
      Emit(position, action, 1);
      ++state.live;
    } else {
      state.waiting.push_back(*parts.backward_input);
      Emit(position, {ActionKind::kBackwardInput, *parts.backward_input, {}, -1}, 1);
    }
    if (parts.forward != nullptr) forward_done_[*parts.forward] = state.clock;
    if (parts.backward_input != nullptr) gradient_done_[*parts.backward_input] = state.clock;
  }

  const Program& program_;
  const Mesh& mesh_;
  const int max_live_;
  std::vector<State> states_;
  std::map<Work, int64_t> forward_done_, gradient_done_;  // when
  Program result_;
};

}  // namespace

Program KeepFirstMicroBatches(const Program& program, int64_t micro_batches) {
  Program result;
  for (const std::vector<Action>& actions : program.positions) {
    std::vector<Action>& kept = result.positions.emplace_back();
    for (const Action& action : actions) {
      const bool work = action.work.micro_batch < micro_batches;
      const bool paired = action.kind == ActionKind::kOverlapped && action.paired.micro_batch < micro_batches;
      if (action.kind == ActionKind::kOverlapped && work != paired) {
        kept.push_back(work ? Action{ActionKind::kForward, action.work, {}, -1}
                            : Action{ActionKind::kBackward, action.paired, {}, -1});
      } else if (work) {
        kept.push_back(action);
      }
    }
  }
  return result;
}

Program DeferWeightGradients(const Program& program, const Mesh& mesh, int max_live) {
  CHECK_GE(max_live, 1);
  return WeightDeferral(program, mesh, max_live).Run();
}

}  // namespace shoestring
