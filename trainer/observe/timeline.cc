// Measured intervals drawn like simulated ones, above a simulation at their mean costs.
#include "trainer/observe/timeline.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/draw.h"
#include "parallel/pipeline/simulate.h"
#include "trainer/observe/trace_file.h"

namespace shoestring {
namespace {

// Pictures count in milliseconds, whatever a simulation calls its unit.
constexpr double kMsPerUs = 1e-3, kSecondsPerMs = 1e-3;

bool Computes(ActionKind kind) { return !IsSend(kind) && !IsReceive(kind) && kind != ActionKind::kReduce; }

struct Measured {
  Program program;
  Simulation times;
  std::vector<std::vector<double>> waited;  // of each action of each position: for other ranks, while it computed
  int64_t step = 0;

  double computing(size_t position, size_t action) const {
    const Simulation::Interval& time = times.positions[position].actions[action];
    return time.end_s - time.start_s - waited[position][action];
  }
};

// Adds the waits that lie in actions that compute, which come in order of time as the waits do, and takes them off what
// the position was busy.
void AddWaits(const ReadTraceFile& file, double origin_us, Simulation::Position& position,
              std::vector<double>& waited) {
  waited.assign(file.actions.size(), 0);
  size_t next = 0;
  for (size_t i = 0; i < file.actions.size(); ++i) {
    const ReadTraceAction& action = file.actions[i];
    while (next < file.waits.size() && file.waits[next].end_us <= action.begin_us) ++next;
    if (!Computes(action.action.kind)) continue;
    for (size_t w = next; w < file.waits.size() && file.waits[w].begin_us < action.end_us; ++w) {
      const double begin_us = std::max(file.waits[w].begin_us, action.begin_us);
      const double end_us = std::min(file.waits[w].end_us, action.end_us);
      if (end_us <= begin_us) continue;
      position.waits.push_back({kMsPerUs * (begin_us - origin_us), kMsPerUs * (end_us - origin_us)});
      waited[i] += kMsPerUs * (end_us - begin_us);
    }
    position.busy_s -= waited[i];
  }
}

// Only a program that fits the layout can be simulated: the run may have moved to another one since.
absl::Status CheckRecorded(const Program& program, const Mesh& mesh, const std::string& directory) {
  std::vector<int64_t> micro_batches(mesh.directions(), 0);
  for (const std::vector<Action>& actions : program.positions) {
    for (const Action& action : actions) {
      if (action.work.direction.value >= mesh.directions()) continue;
      int64_t& count = micro_batches[action.work.direction.value];
      count = std::max(count, action.work.micro_batch + 1);
    }
  }
  const absl::Status status = CheckProgram(program, mesh, micro_batches);
  if (status.ok()) return status;
  return absl::DataLossError(absl::StrCat(directory, ": traces of another layout: ", status.message()));
}

absl::StatusOr<Measured> ReadPositions(FileSystem& fs, const std::string& directory, const Mesh& mesh) {
  Measured measured;
  std::vector<ReadTraceFile> files;
  double origin_us = 0, end_us = 0;
  for (int p = 0; p < mesh.pipeline_ranks(); ++p) {
    ASSIGN_OR_RETURN(ReadTraceFile file, ReadTrace(fs, TracePath(directory, mesh.RankAt(p, 0).value)));
    if (file.facts.position != p || (p > 0 && file.facts.step != measured.step) || file.actions.empty()) {
      return absl::DataLossError(absl::StrCat(directory, ": traces of different steps or layouts"));
    }
    measured.step = file.facts.step;
    const double first = file.actions.front().begin_us;
    origin_us = p == 0 ? first : std::min(origin_us, first);
    files.push_back(std::move(file));
  }
  for (const ReadTraceFile& file : files) {
    std::vector<Action>& actions = measured.program.positions.emplace_back();
    Simulation::Position& position = measured.times.positions.emplace_back();
    AddWaits(file, origin_us, position, measured.waited.emplace_back());
    bool has_computed = false;
    for (const ReadTraceAction& action : file.actions) {
      const double start_s = kMsPerUs * (action.begin_us - origin_us), end_s = kMsPerUs * (action.end_us - origin_us);
      actions.push_back(action.action);
      position.actions.push_back({start_s, end_s});
      end_us = std::max(end_us, end_s);
      if (!Computes(action.action.kind)) continue;
      if (!has_computed) position.first_start_s = start_s;
      has_computed = true;
      position.last_end_s = end_s;
      position.busy_s += end_s - start_s;
    }
  }
  measured.times.makespan_s = end_us;
  RETURN_IF_ERROR(CheckRecorded(measured.program, mesh, directory));
  return measured;
}

// Mean costs of each stage, without what they waited for, and what overlapped pairs take of their parts.
ProgramCosts MeanCosts(const Measured& measured, int stages) {
  struct Sum {
    double seconds = 0;
    int count = 0;
    double mean(double otherwise) const { return count > 0 ? seconds / count : otherwise; }
  };
  std::vector<Sum> forward(stages), input(stages), weight(stages), whole(stages);
  const auto each = [&](auto use) {
    for (size_t p = 0; p < measured.program.positions.size(); ++p) {
      for (size_t i = 0; i < measured.program.positions[p].size(); ++i) {
        use(measured.program.positions[p][i], measured.computing(p, i));
      }
    }
  };
  each([&](const Action& action, double seconds) {
    const auto add = [&](std::vector<Sum>& sums) {
      sums[action.work.stage.value].seconds += seconds;
      ++sums[action.work.stage.value].count;
    };
    if (action.kind == ActionKind::kForward) add(forward);
    if (action.kind == ActionKind::kBackwardInput) add(input);
    if (action.kind == ActionKind::kBackwardWeight) add(weight);
    if (action.kind == ActionKind::kBackward) add(whole);
  });
  ProgramCosts costs = ProgramCosts::Equal(stages);
  for (int s = 0; s < stages; ++s) {
    StageCosts& stage = costs.stages[s];
    stage.backward_weight_s = weight[s].mean(whole[s].mean(0) / 2);
    stage.backward_input_s = input[s].mean(std::max(0.0, whole[s].mean(0) - stage.backward_weight_s));
    stage.forward_s = forward[s].mean(stage.backward_s() / 2);
  }
  double pairs_s = 0, parts_s = 0;
  each([&](const Action& action, double seconds) {
    if (action.kind != ActionKind::kOverlapped) return;
    pairs_s += seconds;
    parts_s += costs.stages[action.work.stage.value].forward_s + costs.stages[action.paired.stage.value].backward_s();
  });
  if (parts_s > 0) costs.overlapped_share = pairs_s / parts_s;
  return costs;
}

absl::StatusOr<std::string> NewestTraces(FileSystem& fs, const std::string& run_directory) {
  ASSIGN_OR_RETURN(std::vector<std::string> names, fs.List(run_directory));
  std::sort(names.rbegin(), names.rend());
  for (const std::string& name : names) {
    if (name.rfind("attempt_", 0) != 0) continue;
    const std::string directory = TraceDirectory(JoinPath(run_directory, name));
    if (Exists(fs, TracePath(directory, 0))) return directory;
  }
  return absl::NotFoundError(absl::StrCat(run_directory, ": no attempt has recorded a step"));
}

}  // namespace

absl::StatusOr<Timeline> ReadTimeline(FileSystem& fs, const std::string& run_directory,
                                      const config::LayoutConfig& layout) {
  ASSIGN_OR_RETURN(const std::string directory, NewestTraces(fs, run_directory));
  ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Create(layout));
  ASSIGN_OR_RETURN(Measured measured, ReadPositions(fs, directory, mesh));
  const Simulation planned = Simulate(measured.program, mesh, MeanCosts(measured, mesh.stages()));
  for (size_t p = 0; p < planned.positions.size(); ++p) {  // the program's, not the clock's
    measured.times.positions[p].live = planned.positions[p].live;
    measured.times.positions[p].most_live = planned.positions[p].most_live;
  }
  Timeline timeline;
  timeline.step = measured.step;
  timeline.measured_s = kSecondsPerMs * measured.times.makespan_s;
  timeline.planned_s = kSecondsPerMs * planned.makespan_s;
  timeline.measured_bubble = measured.times.bubble_share();
  double waited_s = 0;
  for (const std::vector<double>& position : measured.waited) {
    waited_s = std::accumulate(position.begin(), position.end(), waited_s);
  }
  timeline.measured_exposed =
      waited_s / (measured.times.makespan_s * static_cast<double>(measured.times.positions.size()));
  timeline.planned_bubble = planned.bubble_share();
  const auto title = [&](const char* what, double seconds, double bubble) {
    return absl::StrFormat("%s: step %d, %.1f ms, %.0f %% of it not computing; times in ms", what, measured.step,
                           1e3 * seconds, 100 * bubble);
  };
  timeline.measured_svg = DrawSimulation(measured.program, mesh, measured.times,
                                         title("Measured", timeline.measured_s, timeline.measured_bubble));
  timeline.planned_svg =
      DrawSimulation(measured.program, mesh, planned, title("Planned", timeline.planned_s, timeline.planned_bubble));
  return timeline;
}

}  // namespace shoestring
