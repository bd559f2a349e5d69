// The verb `schedule`: the pipeline program of a schedule, printed, checked, simulated, drawn.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "configs/resolve.h"
#include "configs/suggest.h"
#include "launch/exit_codes.h"
#include "launch/verbs.h"
#include "parallel/pipeline/build.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/draw.h"
#include "parallel/pipeline/program_json.h"
#include "parallel/pipeline/simulate.h"

namespace shoestring {
namespace {

constexpr int64_t kMostStages = 4096;
constexpr int64_t kMostActions = 2'000'000;  // stages * micro-batches: some hundred megabytes of program

struct Request {
  std::string kind;
  config::LayoutConfig layout;
  int64_t micro_batches = 0;  // in each direction
  ProgramCosts costs;
  std::string program;  // file of a program to take instead of the schedule's own
  std::string svg;
};

// Of the choices of LayoutConfig.schedule; null if there is none of that name.
const google::protobuf::FieldDescriptor* ScheduleField(const std::string& kind) {
  const auto* field = config::LayoutConfig::descriptor()->FindFieldByName(kind);
  return field != nullptr && field->containing_oneof() != nullptr ? field : nullptr;
}

std::vector<std::string> ScheduleNames() {
  const auto* schedules = config::LayoutConfig::descriptor()->FindOneofByName("schedule");
  std::vector<std::string> names;
  for (int i = 0; i < schedules->field_count(); ++i) names.push_back(schedules->field(i)->name());
  return names;
}

absl::Status ReadLayout(const Values& values, Request& request) {
  request.kind = values["kind"].as<std::string>();
  const auto* field = ScheduleField(request.kind);
  if (field == nullptr) {
    const std::string nearest = config::Nearest(request.kind, ScheduleNames());
    return absl::InvalidArgumentError(absl::StrCat("--kind ", request.kind, ": no schedule",
                                                   nearest.empty() ? "" : ", did you mean " + nearest + "?",
                                                   "; there are: ", absl::StrJoin(ScheduleNames(), ", ")));
  }
  config::LayoutConfig& layout = request.layout;
  layout.GetReflection()->MutableMessage(&layout, field);
  const int64_t chunks = values["chunks"].as<int64_t>();
  if (layout.has_interleaved()) {
    if (chunks < 2)
      return absl::InvalidArgumentError(absl::StrCat("--chunks ", chunks, ": interleaved needs 2 or more"));
    layout.mutable_interleaved()->set_chunks(static_cast<int>(std::min(chunks, kMostStages + 1)));
  } else if (!values["chunks"].defaulted()) {
    return absl::InvalidArgumentError(absl::StrCat("--chunks is for interleaved, not for ", request.kind));
  }
  const int64_t stages = values["stages"].as<int64_t>();
  if (stages < 1 || stages > kMostStages) {
    return absl::InvalidArgumentError(absl::StrCat("--stages ", stages, ": at least 1 and at most ", kMostStages));
  }
  layout.set_pipeline_ranks(1);
  const int64_t per_position = config::StagesOfSchedule(layout);
  if (stages % per_position != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--stages ", stages, ": ", request.kind, " has ", per_position,
                                                   " stages a position; say a multiple of ", per_position));
  }
  layout.set_pipeline_ranks(static_cast<int>(stages / per_position));
  layout.set_stages(static_cast<int>(stages));
  return absl::OkStatus();
}

absl::Status ReadMicroBatches(const Values& values, Request& request) {
  const int64_t all = values["microbatches"].as<int64_t>();
  const int directions = config::Directions(request.layout);
  if (all < 1) return absl::InvalidArgumentError(absl::StrCat("--microbatches ", all, ": at least 1"));
  if (all > kMostActions / request.layout.stages()) {
    return absl::InvalidArgumentError(absl::StrCat("--microbatches ", all, ": with ", request.layout.stages(),
                                                   " stages at most ", kMostActions / request.layout.stages()));
  }
  if (all % directions != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--microbatches ", all, ": ", request.kind, " sends half of them each way; say an even number"));
  }
  request.micro_batches = all / directions;
  return absl::OkStatus();
}

absl::Status ReadCosts(const Values& values, ProgramCosts& costs) {
  constexpr double kLongest = 1e9;
  for (const char* flag : {"forward", "backward-input", "backward-weight", "overlapped-share", "message", "reduce"}) {
    const double value = values[flag].as<double>();
    if (!(value >= 0 && value <= kLongest)) {
      return absl::InvalidArgumentError(absl::StrCat("--", flag, " ", value, ": no time; say 0 to 1e9"));
    }
  }
  for (StageCosts& stage : costs.stages) {
    stage.forward_s = values["forward"].as<double>();
    stage.backward_input_s = values["backward-input"].as<double>();
    stage.backward_weight_s = values["backward-weight"].as<double>();
  }
  costs.overlapped_share = values["overlapped-share"].as<double>();
  costs.message_s = values["message"].as<double>();
  costs.reduce_s = values["reduce"].as<double>();
  return absl::OkStatus();
}

absl::StatusOr<Request> ReadRequest(const Values& values) {
  Request request;
  RETURN_IF_ERROR(ReadLayout(values, request));
  RETURN_IF_ERROR(ReadMicroBatches(values, request));
  request.costs = ProgramCosts::Equal(request.layout.stages());
  RETURN_IF_ERROR(ReadCosts(values, request.costs));
  request.program = ValueOr<std::string>(values, "program", "");
  request.svg = ValueOr<std::string>(values, "svg", "");
  if (values.count("print") + values.count("json") + values.count("check") > 1) {
    return absl::InvalidArgumentError("--print, --json and --check all write to standard output; say one of them");
  }
  return request;
}

absl::StatusOr<Program> ReadProgram(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(PosixFileSystem(), path));
  absl::StatusOr<Program> program = ParseProgram(text);
  if (!program.ok()) return WithContext(program.status(), path);
  return program;
}

std::string Title(const Request& request, const Mesh& mesh) {
  return absl::StrCat(request.kind, ": ", mesh.pipeline_ranks(),
                      mesh.pipeline_ranks() == 1 ? " position, " : " positions, ", mesh.stages(),
                      mesh.stages() == 1 ? " stage, " : " stages, ", request.micro_batches,
                      request.micro_batches == 1 ? " micro-batch" : " micro-batches",
                      mesh.directions() == 2 ? " in each direction" : "");
}

std::string Summary(const Request& request, const Mesh& mesh, const Program& program, const Simulation& simulation) {
  const StageCosts& stage = request.costs.stages[0];
  std::string text = absl::StrCat(Title(request, mesh), "\n");
  absl::StrAppendFormat(&text, "costs: F %g, I %g, W %g; B = I + W; a pair %g of F + B; messages %g; reductions %g\n\n",
                        stage.forward_s, stage.backward_input_s, stage.backward_weight_s,
                        request.costs.overlapped_share, request.costs.message_s, request.costs.reduce_s);
  absl::StrAppendFormat(&text, "%8s %9s %6s %6s %6s %6s %6s %10s %10s %6s\n", "position", "stages", "F", "F+B", "B",
                        "I", "W", "computes", "waits", "live");
  int most_live = 0;
  for (int p = 0; p < mesh.pipeline_ranks(); ++p) {
    std::map<ActionKind, int64_t> counts;
    for (const Action& action : program.positions[p]) ++counts[action.kind];
    std::vector<int> stages;
    for (const StageId id : mesh.StagesAt(p)) stages.push_back(id.value);
    const std::string list =
        stages.size() <= 3 ? absl::StrJoin(stages, ",") : absl::StrCat(stages.front(), ",..,", stages.back());
    absl::StrAppendFormat(&text, "%8d %9s %6d %6d %6d %6d %6d %10.6g %10.6g %6d\n", p, list,
                          counts[ActionKind::kForward], counts[ActionKind::kOverlapped], counts[ActionKind::kBackward],
                          counts[ActionKind::kBackwardInput], counts[ActionKind::kBackwardWeight],
                          simulation.positions[p].busy_s, simulation.bubble_s(p), simulation.positions[p].most_live);
    most_live = std::max(most_live, simulation.positions[p].most_live);
  }
  absl::StrAppendFormat(&text, "\ntime %.6g, bubble %.2f %%, at most %d micro-batches of a stage live at a position\n",
                        simulation.makespan_s, 100.0 * simulation.bubble_share(), most_live);
  return text;
}

int Show(const Values& values, const Request& request, const Mesh& mesh, const Program& program) {
  const Simulation simulation = Simulate(program, mesh, request.costs);
  if (!request.svg.empty()) {
    const absl::Status written = WriteFileDurably(PosixFileSystem(), request.svg,
                                                  DrawSimulation(program, mesh, simulation, Title(request, mesh)));
    if (!written.ok()) return Fail(Area::kRun, written);
  }
  std::string text;
  if (values.count("print") > 0) {
    text = ToString(program);
  } else if (values.count("json") > 0) {
    text = ProgramJson(program, mesh, simulation);
  } else if (values.count("check") > 0) {
    size_t actions = 0;
    for (const std::vector<Action>& position : program.positions) actions += position.size();
    text = absl::StrCat("right: ", Title(request, mesh), ", ", actions, " actions\n");
  } else {
    text = Summary(request, mesh, program, simulation);
  }
  std::fputs(text.c_str(), stdout);
  return static_cast<int>(ExitCode::kDone);
}

int Run(const Values& values) {
  const absl::StatusOr<Request> request = ReadRequest(values);
  if (!request.ok()) return Fail(Area::kUsage, request.status());
  const absl::StatusOr<Mesh> mesh = Mesh::Create(request->layout);
  if (!mesh.ok()) return Fail(Area::kUsage, mesh.status());
  if (request->program.empty()) {
    const absl::StatusOr<Program> program = BuildProgram(request->layout, *mesh, request->micro_batches);
    if (!program.ok()) return Fail(Area::kUsage, program.status());
    return Show(values, *request, *mesh, *program);
  }
  const absl::StatusOr<Program> program = ReadProgram(request->program);
  if (!program.ok()) return Fail(Area::kData, program.status());
  const absl::Status right =
      CheckProgram(*program, *mesh, std::vector<int64_t>(mesh->directions(), request->micro_batches));
  if (!right.ok()) {
    Fail(Area::kData, WithContext(right, request->program));
    return static_cast<int>(ExitCode::kCheckFailed);
  }
  return Show(values, *request, *mesh, *program);
}

void Declare(po::options_description& flags) {
  auto add = flags.add_options();
  add("kind", po::value<std::string>()->required()->value_name("NAME"),
      "gpipe, one_f_one_b, interleaved, zb_h1, zb_v, dualpipe or dualpipe_v");
  add("stages", po::value<int64_t>()->required()->value_name("S"),
      "of the model; a position holds one, of zb_v and dualpipe_v two, of interleaved --chunks");
  add("microbatches", po::value<int64_t>()->required()->value_name("M"),
      "that enter the pipeline in a step; of dualpipe half from each end");
  add("chunks", po::value<int64_t>()->default_value(2)->value_name("V"), "of interleaved: stages a position");
  add("print", "the program in its text form, no summary");
  add("json", "the program and its simulated times as JSON, no summary");
  add("check", "only say whether the program is right: exit code 0 or 1");
  add("program", po::value<std::string>()->value_name("FILE"),
      "a program in its text form, instead of the schedule's own; it is checked before anything else");
  add("svg", po::value<std::string>()->value_name("FILE"), "also draw it");
  add("forward", po::value<double>()->default_value(1)->value_name("T"), "time of a forward of one stage, in any unit");
  add("backward-input", po::value<double>()->default_value(1)->value_name("T"), "of its input gradients");
  add("backward-weight", po::value<double>()->default_value(1)->value_name("T"), "of its weight gradients");
  add("overlapped-share", po::value<double>()->default_value(1)->value_name("X"),
      "what an overlapped pair takes of its forward and backward one after the other");
  add("message", po::value<double>()->default_value(0)->value_name("T"), "time of a message between positions");
  add("reduce", po::value<double>()->default_value(0)->value_name("T"), "time of the reduction of a stage's gradients");
}

}  // namespace

Verb ScheduleVerb() {
  return {
      "schedule",
      "print, check, simulate or draw a pipeline schedule",
      "--kind NAME --stages S --microbatches M [--print | --check | --json] [--svg FILE]",
      "What every pipeline position does, in order: the program that training runs, simulated at the costs that are\n"
      "given. See docs/schedules.md.\n\nExample:\n"
      "  shoestring schedule --kind dualpipe --stages 8 --microbatches 20 --svg dualpipe.svg\n"
      "  shoestring schedule --kind zb_h1 --stages 4 --microbatches 8 --print",
      Declare,
      "",
      Run};
}

}  // namespace shoestring
