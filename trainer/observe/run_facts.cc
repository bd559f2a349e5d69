// Facts from the config, and the block that is printed at the start.
#include "trainer/observe/run_facts.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "configs/print.h"
#include "trainer/params.h"

namespace shoestring {
namespace {

std::string ParametersText(const config::ModelConfig& model) {
  const ParameterCounts counts = CountParameters(model);
  std::string text = absl::StrFormat("%-26s %18d  %s\n", "main model", counts.main_model,
                                     HumanCount(static_cast<double>(counts.main_model)));
  const auto add = [&text](const char* what, int64_t count) {
    absl::StrAppendFormat(&text, "%-26s %18d  %s\n", what, count, HumanCount(static_cast<double>(count)));
  };
  add("at work for one token", counts.activated);
  if (counts.mtp_unique > 0) add("multi-token prediction", counts.mtp_unique);
  return text;
}

// A title over indented lines; nothing when there are none.
void AppendSection(const char* title, const std::string& text, std::string& block) {
  if (text.empty()) return;
  absl::StrAppend(&block, title, "\n");
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    absl::StrAppend(&block, "  ", line, "\n");
  }
}

}  // namespace

RunFacts FactsOf(const config::RunConfig& config, const Schedule& schedule) {
  RunFacts facts;
  facts.name = config.name();
  facts.device = config::LayoutConfig::Device_Name(config.layout().device());
  facts.fast_sums = config.train().reduction() == config::TrainConfig::FAST;
  facts.total_steps = schedule.TotalSteps();
  if (config.train().has_validation()) facts.validation_interval_steps = config.train().validation().interval_steps();
  facts.log_interval_steps = std::max<int64_t>(1, config.train().log_interval_steps());
  facts.config_text = config::CanonicalText(config);
  facts.numerics_hash = config::NumericsHash(config);
  facts.run_hash = config::RunHash(config);
  facts.parameters = ParametersText(config.model());
  return facts;
}

int64_t LastStep(const RunFacts& facts) {
  return facts.stop_step > 0 ? std::min(facts.stop_step, facts.total_steps) : facts.total_steps;
}

std::string HumanCount(double count) {
  constexpr const char* kUnits[] = {"", " K", " M", " B", " T"};
  int unit = 0;
  while (std::abs(count) >= 999.5 && unit < 4) {
    count /= 1000.0;
    ++unit;
  }
  if (unit == 0) return absl::StrFormat("%.4g", count);
  const int decimals = std::abs(count) >= 99.95 ? 1 : std::abs(count) >= 9.995 ? 2 : 3;
  return absl::StrFormat("%.*f%s", decimals, count, kUnits[unit]);
}

std::string HumanSeconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 59.95) return absl::StrFormat("%.1f s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
  if (whole < 100 * 3600) return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
  return absl::StrFormat("%d d %d h", whole / 86400, whole / 3600 % 24);
}

std::string StartBlock(const RunFacts& facts) {
  std::string block =
      absl::StrFormat("run        %s\nnumerics   %s\nconfig     %s\ndevice     %s%s, %d rank%s of %d thread%s\n",
                      facts.name.empty() ? "(no name)" : facts.name, facts.numerics_hash, facts.run_hash, facts.device,
                      facts.instruction_set.empty() ? "" : absl::StrCat(" ", facts.instruction_set), facts.ranks,
                      facts.ranks == 1 ? "" : "s", facts.threads_per_rank, facts.threads_per_rank == 1 ? "" : "s");
  if (facts.fast_sums) block += "sums       FAST: other layouts give other bits\n";
  if (facts.peak_gflops_per_rank > 0) {
    absl::StrAppendFormat(&block, "peak       %.1f GFLOP/s of matrix products, measured\n", facts.peak_gflops_per_rank);
  }
  absl::StrAppendFormat(&block, "steps      %d", facts.total_steps);
  if (facts.stop_step > 0) absl::StrAppendFormat(&block, ", stops at %d", facts.stop_step);
  if (facts.resumed_step > 0) {
    absl::StrAppendFormat(&block, "; resumes at %d, generation %d", facts.resumed_step, facts.generation);
  }
  block += "\n";
  AppendSection("parameters", facts.parameters, block);
  AppendSection("memory", facts.memory_table, block);
  AppendSection("data", facts.data_table, block);
  return block;
}

}  // namespace shoestring
