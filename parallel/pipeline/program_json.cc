// Objects by a library, lines by hand.
#include "parallel/pipeline/program_json.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

const char* KindName(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward: return "forward";
    case ActionKind::kBackward: return "backward";
    case ActionKind::kBackwardInput: return "backward_input";
    case ActionKind::kBackwardWeight: return "backward_weight";
    case ActionKind::kOverlapped: return "overlapped";
    case ActionKind::kSendForward: return "send_forward";
    case ActionKind::kReceiveForward: return "receive_forward";
    case ActionKind::kSendBackward: return "send_backward";
    case ActionKind::kReceiveBackward: return "receive_backward";
    case ActionKind::kReduce: return "reduce";
  }
  return "";
}

void PutWork(const Work& work, Json& json) {
  json["stage"] = work.stage.value;
  json["micro_batch"] = work.micro_batch;
  json["direction"] = work.direction.value;
}

std::string ActionJson(const Action& action, const Simulation::Interval& interval) {
  Json json;
  json["text"] = ToString(action);
  json["kind"] = KindName(action.kind);
  if (action.kind == ActionKind::kReduce) {
    json["stage"] = action.work.stage.value;
  } else {
    PutWork(action.work, json);
  }
  if (action.kind == ActionKind::kOverlapped) PutWork(action.paired, json["paired"]);
  if (action.peer >= 0) json["peer"] = action.peer;
  json["start"] = interval.start_s;
  json["end"] = interval.end_s;
  return json.dump();
}

std::string PositionJson(const Program& program, const Mesh& mesh, const Simulation& simulation, int position) {
  const Simulation::Position& times = simulation.positions[position];
  Json head;
  head["position"] = position;
  for (const StageId stage : mesh.StagesAt(position)) head["stages"].push_back(stage.value);
  head["busy"] = times.busy_s;
  head["bubble"] = simulation.bubble_s(position);
  head["most_live"] = times.most_live;
  std::vector<std::string> lines;
  for (size_t i = 0; i < times.actions.size(); ++i) {
    lines.push_back(absl::StrCat("   ", ActionJson(program.positions[position][i], times.actions[i])));
  }
  std::string text = head.dump();
  text.pop_back();
  return absl::StrCat("  ", text, ",\"actions\":[\n", absl::StrJoin(lines, ",\n"), "]}");
}

}  // namespace

std::string ProgramJson(const Program& program, const Mesh& mesh, const Simulation& simulation) {
  CHECK_EQ(program.positions.size(), simulation.positions.size());
  Json head;
  head["format"] = "shoestring-schedule";
  head["version"] = 1;
  head["stages"] = mesh.stages();
  head["directions"] = mesh.directions();
  head["makespan"] = simulation.makespan_s;
  head["bubble_share"] = simulation.bubble_share();
  std::vector<std::string> positions;
  for (size_t p = 0; p < program.positions.size(); ++p) {
    positions.push_back(PositionJson(program, mesh, simulation, static_cast<int>(p)));
  }
  std::string text = head.dump();
  text.pop_back();
  return absl::StrCat(text, ",\"positions\":[\n", absl::StrJoin(positions, ",\n"), "]}\n");
}

}  // namespace shoestring
