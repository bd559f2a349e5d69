// Refusals, each with its reason and its remedy; nothing that is asked for is ever replaced in silence.
#include "trainer/support.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "configs/resolve.h"

namespace shoestring {
namespace {

void CheckLayout(const config::LayoutConfig& layout, const std::string& path, std::vector<std::string>& problems) {
  const int64_t ranks = config::WorldSize(layout);
  if (ranks != 1) {
    problems.push_back(absl::StrCat(path, ": ", ranks, " ranks, but this build runs one; set ", path,
                                    ".pipeline_ranks=1, .data_ranks=1 and .expert_ranks=1"));
  }
  if (layout.device() != config::LayoutConfig::CPU) {
    problems.push_back(absl::StrCat(path, ".device: this build has no CUDA; set ", path, ".device=CPU"));
  }
  if (layout.schedule_case() != config::LayoutConfig::SCHEDULE_NOT_SET && !layout.has_one_f_one_b()) {
    problems.push_back(
        absl::StrCat(path, ": this build has the schedule one_f_one_b only; set ", path, ".one_f_one_b={}"));
  }
  if (ranks == 1 && layout.stages() != 1) {
    problems.push_back(absl::StrCat(path, ".stages: one rank holds the whole model; set ", path, ".stages=1"));
  }
}

void CheckPrecision(const config::PrecisionConfig& precision, std::vector<std::string>& problems) {
  if (precision.mode() == config::PrecisionConfig::FP8) {
    problems.push_back(
        "precision.mode: this build computes no FP8; set precision.mode=BF16 (and remove precision.fp8)");
  }
}

void CheckReduction(const config::RunConfig& config, std::vector<std::string>& problems) {
  if (config.train().reduction() == config::TrainConfig::FAST) {
    problems.push_back(
        "train.reduction: FAST is the order of a communication library, and one rank has none; set "
        "train.reduction=CANONICAL");
  }
}

}  // namespace

std::vector<std::string> FindUnsupported(const config::RunConfig& config) {
  std::vector<std::string> problems;
  CheckPrecision(config.precision(), problems);
  CheckReduction(config, problems);
  CheckLayout(config.layout(), "layout", problems);
  for (int i = 0; i < config.train().phase_size(); ++i) {
    const config::PhaseSettings settings = config::ResolvePhase(config, i);
    const std::string path = absl::StrCat("train.phase[", i, "]");
    if (settings.phase->has_layout()) CheckLayout(settings.layout, absl::StrCat(path, ".layout"), problems);
    if (settings.expert_lanes != 1 && config.model().has_moe()) {
      const std::string field =
          settings.phase->has_expert_lanes() ? absl::StrCat(path, ".expert_lanes") : std::string("train.expert_lanes");
      const std::string problem = absl::StrCat(field, ": one rank takes one lane at a time here, not ",
                                               settings.expert_lanes, " together; set ", field, "=1");
      if (problems.empty() || problems.back() != problem) problems.push_back(problem);
    }
  }
  return problems;
}

absl::Status CheckSupported(const config::RunConfig& config) {
  const std::vector<std::string> problems = FindUnsupported(config);
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

}  // namespace shoestring
