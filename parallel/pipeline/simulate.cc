// Positions advance in turn, each as far as the others let it; times do not depend on the turns.
#include "parallel/pipeline/simulate.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"

namespace shoestring {
namespace {

class VirtualRun {
 public:
  VirtualRun(const Program& program, const Mesh& mesh, const ProgramCosts& costs)
      : program_(program), mesh_(mesh), costs_(costs), clocks_(program.positions.size(), 0.0) {
    CHECK_EQ(static_cast<int>(program.positions.size()), mesh.pipeline_ranks());
    CHECK_EQ(static_cast<int>(costs.stages.size()), mesh.stages());
    result_.positions.resize(program.positions.size());
  }

  Simulation Run() {
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t p = 0; p < clocks_.size(); ++p) {
        while (Advance(static_cast<int>(p))) moved = true;
      }
    }
    for (size_t p = 0; p < clocks_.size(); ++p) {
      CHECK_EQ(result_.positions[p].actions.size(), program_.positions[p].size());
      result_.makespan_s = std::max(result_.makespan_s, clocks_[p]);
    }
    return std::move(result_);
  }

 private:
  using Message = std::pair<ActionKind, Work>;  // of the send

  // When the action would end if it began at `start_s`; nothing while that hangs on what others have not done yet.
  std::optional<double> EndOf(int position, const Action& action, double start_s) {
    if (IsSend(action.kind)) {
      sent_[{action.kind, action.work}] = start_s + costs_.message_s;
      return start_s;
    }
    if (IsReceive(action.kind)) {
      const bool forward = action.kind == ActionKind::kReceiveForward;
      const Message message = forward ? Message{ActionKind::kSendForward, Neighbour(action.work, -1)}
                                      : Message{ActionKind::kSendBackward, Neighbour(action.work, 1)};
      const auto it = sent_.find(message);
      if (it == sent_.end()) return std::nullopt;
      return std::max(start_s, it->second);
    }
    if (action.kind == ActionKind::kReduce) return ReductionEnd(position, action.work.stage, start_s);
    return start_s + costs_.DurationOf(action);
  }

  std::optional<double> ReductionEnd(int position, StageId stage, double start_s) {
    std::map<int, double>& came = at_reduction_[stage];
    came.try_emplace(position, start_s);
    double all_s = 0.0;
    for (int d = 0; d < mesh_.directions(); ++d) {
      const auto it = came.find(mesh_.StagePosition(stage, Direction(d)));
      if (it == came.end()) return std::nullopt;
      all_s = std::max(all_s, it->second);
    }
    return all_s + costs_.reduce_s;
  }

  bool Advance(int position) {
    Simulation::Position& out = result_.positions[position];
    if (out.actions.size() == program_.positions[position].size()) return false;
    const Action& action = program_.positions[position][out.actions.size()];
    const double start_s = clocks_[position];
    const std::optional<double> end_s = EndOf(position, action, start_s);
    if (!end_s.has_value()) return false;
    out.actions.push_back({start_s, *end_s});
    clocks_[position] = *end_s;
    const Parts parts = PartsOf(action);
    if (parts.forward == nullptr && parts.backward_input == nullptr && parts.backward_weight == nullptr) return true;
    if (out.live.empty()) out.first_start_s = start_s;
    out.busy_s += *end_s - start_s;
    out.last_end_s = *end_s;
    if (parts.forward != nullptr) ChangeLive(out, start_s, 1);
    if (parts.backward_weight != nullptr) ChangeLive(out, *end_s, -1);
    return true;
  }

  static void ChangeLive(Simulation::Position& position, double time_s, int by) {
    const int count = (position.live.empty() ? 0 : position.live.back().count) + by;
    position.live.push_back({time_s, count});
    position.most_live = std::max(position.most_live, count);
  }

  const Program& program_;
  const Mesh& mesh_;
  const ProgramCosts& costs_;
  std::vector<double> clocks_;
  std::map<Message, double> sent_;  // when it is there
  std::map<StageId, std::map<int, double>> at_reduction_;
  Simulation result_;
};

}  // namespace

double ProgramCosts::DurationOf(const Action& action) const {
  const StageCosts& work = stages[action.work.stage.value];
  switch (action.kind) {
    case ActionKind::kForward: return work.forward_s;
    case ActionKind::kBackward: return work.backward_s();
    case ActionKind::kBackwardInput: return work.backward_input_s;
    case ActionKind::kBackwardWeight: return work.backward_weight_s;
    case ActionKind::kOverlapped: {
      const double backward_s = stages[action.paired.stage.value].backward_s();
      return std::max(overlapped_share * (work.forward_s + backward_s), std::max(work.forward_s, backward_s));
    }
    default: return 0.0;
  }
}

double Simulation::bubble_share() const {
  double idle_s = 0.0;
  for (size_t p = 0; p < positions.size(); ++p) idle_s += bubble_s(static_cast<int>(p));
  return makespan_s > 0.0 ? idle_s / (makespan_s * static_cast<double>(positions.size())) : 0.0;
}

Simulation Simulate(const Program& program, const Mesh& mesh, const ProgramCosts& costs) {
  return VirtualRun(program, mesh, costs).Run();
}

}  // namespace shoestring
