// The table and the page that lay runs side by side.
#include "trainer/observe/compare.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "configs/diff.h"
#include "configs/load.h"
#include "trainer/observe/curves.h"
#include "trainer/observe/page.h"
#include "trainer/observe/run_facts.h"
#include "trainer/observe/svg.h"

namespace shoestring {
namespace {

struct Quantity {
  const char* name;
  std::function<std::string(const ComparedRun&)> value;
};

std::string Optional(const std::optional<double>& value, int decimals) {
  return value.has_value() ? absl::StrFormat("%.*f", decimals, *value) : "-";
}

std::string Share(double part, double whole) { return whole > 0 ? absl::StrFormat("%.1f%%", 100 * part / whole) : "-"; }

std::vector<Quantity> Quantities() {
  return {
      {"exit reason", [](const ComparedRun& r) { return r.summary.exit_reason; }},
      {"steps", [](const ComparedRun& r) { return absl::StrCat(r.summary.steps, "/", r.summary.total_steps); }},
      {"tokens", [](const ComparedRun& r) { return HumanCount(r.summary.tokens); }},
      {"loss, nats/token", [](const ComparedRun& r) { return Optional(r.summary.final_loss, 4); }},
      {"validation, nats/token", [](const ComparedRun& r) { return Optional(r.summary.final_val_loss, 4); }},
      {"validation, bits/byte", [](const ComparedRun& r) { return Optional(r.summary.final_val_bits_per_byte, 4); }},
      {"best validation", [](const ComparedRun& r) { return Optional(r.summary.best_val_loss, 4); }},
      {"wall time", [](const ComparedRun& r) { return HumanSeconds(r.summary.wall_time_s); }},
      {"tokens/s",
       [](const ComparedRun& r) { return r.summary.tokens_per_sec > 0 ? HumanCount(r.summary.tokens_per_sec) : "-"; }},
      {"of GEMM peak",
       [](const ComparedRun& r) { return Share(r.summary.gemm_peak_share, r.summary.gemm_peak_share > 0); }},
      {"max/mean load, last 100", [](const ComparedRun& r) { return Optional(r.summary.mean_max_over_mean_load, 3); }},
      {"memory, GiB", [](const ComparedRun& r) { return Optional(r.summary.mem_peak_gib, 2); }},
      {"numerics", [](const ComparedRun& r) { return r.summary.numerics_hash.substr(0, 12); }},
  };
}

std::vector<std::vector<std::string>> Rows(const std::vector<ComparedRun>& runs) {
  std::vector<std::vector<std::string>> rows;
  for (const Quantity& quantity : Quantities()) {
    std::vector<std::string>& row = rows.emplace_back();
    row.push_back(quantity.name);
    for (const ComparedRun& run : runs) row.push_back(quantity.value(run));
  }
  return rows;
}

std::vector<std::string> Head(const std::vector<ComparedRun>& runs) {
  std::vector<std::string> head = {""};
  for (const ComparedRun& run : runs) head.push_back(run.label);
  return head;
}

// A line a field, as `config diff` says it.
std::string ConfigDifference(const Summary& before, const Summary& after) {
  const absl::StatusOr<config::LoadedConfig> a = config::ParseConfig(before.config_text, "summary.json");
  const absl::StatusOr<config::LoadedConfig> b = config::ParseConfig(after.config_text, "summary.json");
  if (!a.ok() || !b.ok()) return ": a config cannot be read; another version of this program wrote it\n";
  std::string lines;
  for (const config::Difference& difference : config::Diff(a->config, b->config)) {
    absl::StrAppend(&lines, "  ", difference.ToString(), "\n");
  }
  return lines.empty() ? ": equal\n" : absl::StrCat(":\n", lines);
}

std::string ConfigDifferences(const std::vector<ComparedRun>& runs) {
  std::string text;
  for (size_t i = 1; i < runs.size(); ++i) {
    absl::StrAppend(&text, "config of ", runs[i].label, " against ", runs[0].label,
                    ConfigDifference(runs[0].summary, runs[i].summary));
  }
  return text;
}

std::string Overlay(const std::vector<ComparedRun>& runs, std::optional<double> StepMetrics::*value, const char* title,
                    const char* unit, bool smooth, bool from_zero) {
  LineChart chart{.title = title, .x_label = "step", .y_label = unit, .from_zero = from_zero, .series = {}};
  int color = 0;
  for (const ComparedRun& run : runs) {
    Series series = CurveOf(run.metrics, value, run.label, color++);
    if (series.x.empty()) continue;
    series.points = !smooth && series.x.size() <= 50;
    chart.series.push_back(smooth ? Smoothed(std::move(series)) : std::move(series));
  }
  if (chart.series.empty()) return "";
  chart.log_y = !from_zero && WantsLogarithm(chart);
  return RenderLineChart(chart);
}

}  // namespace

absl::StatusOr<std::vector<ComparedRun>> ReadRuns(FileSystem& fs, const std::vector<std::string>& run_dirs) {
  std::vector<ComparedRun> runs;
  std::set<std::string> labels;
  for (const std::string& run_dir : run_dirs) {
    ComparedRun run;
    run.label = BaseName(run_dir);
    for (int again = 2; !labels.insert(run.label).second; ++again) {
      run.label = absl::StrCat(BaseName(run_dir), " (", again, ")");
    }
    ASSIGN_OR_RETURN(run.summary, ReadSummary(fs, run_dir));
    ASSIGN_OR_RETURN(run.metrics, ReadMetrics(fs, JoinPath(run_dir, "metrics.jsonl")));
    CatchUp(run.metrics, run.summary);
    runs.push_back(std::move(run));
  }
  return runs;
}

std::string CompareTable(const std::vector<ComparedRun>& runs) {
  std::vector<std::vector<std::string>> rows = Rows(runs);
  rows.insert(rows.begin(), Head(runs));
  std::vector<size_t> widths(runs.size() + 1, 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string table;
  for (const auto& row : rows) {
    absl::StrAppendFormat(&table, "%-*s", static_cast<int>(widths[0]), row[0]);
    for (size_t i = 1; i < row.size(); ++i) absl::StrAppendFormat(&table, "  %*s", static_cast<int>(widths[i]), row[i]);
    table += "\n";
  }
  const std::string differences = ConfigDifferences(runs);
  return differences.empty() ? table : absl::StrCat(table, "\n", differences);
}

std::string ComparePage(const std::vector<ComparedRun>& runs) {
  std::string html =
      PageOpen(absl::StrCat("Comparison of ", runs.size(), runs.size() == 1 ? " run" : " runs"), "", false);
  html += Section("Figures", HtmlTable(Head(runs), Rows(runs)));
  html +=
      Section("Curves",
              ChartGrid({Overlay(runs, &StepMetrics::loss, "Training loss, smoothed", "nats/token", true, false),
                         Overlay(runs, &StepMetrics::val_loss, "Validation loss", "nats/token", false, false),
                         Overlay(runs, &StepMetrics::lr, "Learning rate", "", false, true),
                         Overlay(runs, &StepMetrics::grad_norm, "Gradient norm, smoothed", "", true, false),
                         Overlay(runs, &StepMetrics::max_over_mean_load, "Busiest expert over mean, smoothed",
                                 "1 is balanced", true, false),
                         Overlay(runs, &StepMetrics::tokens_per_sec, "Throughput, smoothed", "tokens/s", true, true)}));
  html += Section("What differs in the configs", Preformatted(ConfigDifferences(runs)));
  return html + PageClose();
}

}  // namespace shoestring
