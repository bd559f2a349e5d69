// The report's page: figures on top, then curves, then where time and memory went, then the config.
#include "trainer/observe/report.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "configs/load.h"
#include "configs/resolve.h"
#include "trainer/observe/curves.h"
#include "trainer/observe/page.h"
#include "trainer/observe/run_facts.h"
#include "trainer/observe/svg.h"

namespace shoestring {
namespace {

constexpr size_t kLayersAsLines = 8;
constexpr int kHeatColumns = 120;

bool HasFailed(const Summary& summary) { return absl::StartsWith(summary.exit_reason, "failed"); }

std::string Fixed(double value, int decimals) { return absl::StrFormat("%.*f", decimals, value); }

std::vector<KeyFigure> MakeKeyFigures(const Summary& s) {
  std::vector<KeyFigure> tiles;
  const auto add = [&tiles](const char* caption, const std::optional<double>& value, int decimals, const char* unit) {
    if (value.has_value()) tiles.push_back({caption, Fixed(*value, decimals), unit});
  };
  add("validation loss", s.final_val_loss, 4, "nats/token");
  add("validation loss", s.final_val_bits_per_byte, 4, "bits/byte");
  add("training loss", s.final_loss, 4, "nats/token");
  tiles.push_back({"steps", absl::StrCat(s.steps), absl::StrCat("of ", s.total_steps)});
  tiles.push_back({"tokens", HumanCount(s.tokens), ""});
  tiles.push_back({"wall time", HumanSeconds(s.wall_time_s), ""});
  if (s.tokens_per_sec > 0) tiles.push_back({"speed", HumanCount(s.tokens_per_sec), "tokens/s"});
  if (s.gemm_peak_share > 0) {
    tiles.push_back({"of the GEMM peak", Fixed(100 * s.gemm_peak_share, 1), "%"});
  }
  add("busiest expert / mean", s.mean_max_over_mean_load, 2, "last 100 steps");
  add("memory at most", s.mem_peak_gib, 2, "GiB");
  return tiles;
}

// The start of the run in a sentence or two: what a reader wants to know before any curve.
std::string Verdict(const Summary& summary, const MetricsFile& metrics) {
  std::string text = absl::StrFormat("%d of %d steps are done", summary.steps, summary.total_steps);
  const Series loss = Smoothed(CurveOf(metrics, &StepMetrics::loss, "", 0));
  if (loss.y.size() > 1) {
    absl::StrAppendFormat(&text, "; the loss went from %.3f to %.3f nats a token (smoothed)", loss.y.front(),
                          loss.y.back());
  }
  text += ".";
  if (summary.final_val_loss.has_value() && summary.best_val_loss.has_value() &&
      *summary.final_val_loss > 1.005 * *summary.best_val_loss) {
    absl::StrAppendFormat(&text, " The validation loss was lower before: %.4f.", *summary.best_val_loss);
  }
  if (metrics.skipped_lines > 0) {
    absl::StrAppendFormat(&text, " %d damaged lines of metrics.jsonl were left out.", metrics.skipped_lines);
  }
  return absl::StrCat("<p>", EscapeMarkup(text), "</p>\n");
}

std::string LossChart(const MetricsFile& metrics) {
  LineChart chart{.title = "Loss", .x_label = "step", .y_label = "nats/token", .series = {}};
  AddRawAndSmooth(CurveOf(metrics, &StepMetrics::loss, "training", 0), chart);
  if (Series mtp = CurveOf(metrics, &StepMetrics::loss_mtp, "multi-token prediction", 7); !mtp.x.empty()) {
    chart.series.push_back(Smoothed(std::move(mtp)));
  }
  Series validation = CurveOf(metrics, &StepMetrics::val_loss, "validation", 1);
  validation.points = true;
  if (!validation.x.empty()) chart.series.push_back(std::move(validation));
  return chart.series.empty() ? "" : RenderLineChart(chart);
}

std::string ValueChart(const MetricsFile& metrics, std::optional<double> StepMetrics::*value, const char* title,
                       const char* unit, int color, bool smooth, bool from_zero) {
  LineChart chart{.title = title, .x_label = "step", .y_label = unit, .from_zero = from_zero, .series = {}};
  Series series = CurveOf(metrics, value, "", color);
  if (series.x.empty()) return "";
  if (smooth) {
    AddRawAndSmooth(series, chart);
  } else {
    chart.series.push_back(std::move(series));
  }
  chart.log_y = !from_zero && WantsLogarithm(chart);
  return RenderLineChart(chart);
}

// A curve of expert load for each layer.
std::vector<Series> LayerCurves(const MetricsFile& metrics) {
  std::vector<Series> layers;
  for (const StepMetrics& row : metrics.rows) {
    for (size_t i = 0; i < row.layer_loads.size(); ++i) {
      if (i >= layers.size()) {
        layers.push_back(
            {.name = absl::StrCat("layer ", row.moe_layers[i]), .x = {}, .y = {}, .color = static_cast<int>(i)});
      }
      layers[i].x.push_back(static_cast<double>(row.step));
      layers[i].y.push_back(row.layer_loads[i]);
    }
  }
  return layers;
}

std::string LoadChart(const std::vector<Series>& layers, const MetricsFile& metrics) {
  if (layers.empty()) return "";
  LineChart chart{
      .title = "Expert load: busiest expert over mean", .x_label = "step", .y_label = "1 is balanced", .series = {}};
  if (layers.size() <= kLayersAsLines) {
    for (const Series& layer : layers) chart.series.push_back(Smoothed(layer));
  } else {
    AddRawAndSmooth(CurveOf(metrics, &StepMetrics::max_over_mean_load, "mean over layers", 0), chart);
  }
  return RenderLineChart(chart);
}

// Means of stretches of steps, a row a layer: for models of more layers than lines can show.
std::string LoadOverTime(const std::vector<Series>& layers) {
  if (layers.size() <= kLayersAsLines) return "";
  HeatMap map;
  map.title = "Expert load of each layer over time";
  map.x_label = "step";
  map.low = 1;
  map.high = 1;
  for (const Series& layer : layers) {
    const int columns = std::min(kHeatColumns, static_cast<int>(layer.y.size()));
    std::vector<double>& cells = map.values.emplace_back();
    for (int c = 0; c < columns; ++c) {
      const size_t begin = layer.y.size() * c / columns, end = layer.y.size() * (c + 1) / columns;
      double sum = 0;
      for (size_t i = begin; i < end; ++i) sum += layer.y[i];
      cells.push_back(sum / static_cast<double>(end - begin));
      map.high = std::max(map.high, cells.back());
    }
    map.row_labels.push_back(layer.name);
  }
  map.low_label = "balanced";
  map.high_label = absl::StrCat(Fixed(map.high, 1), " x mean");
  map.first_x = layers[0].x.front();
  map.last_x = layers[0].x.back();
  return RenderHeatMap(map);
}

std::string LastLoads(const ExpertLoads& loads) {
  if (loads.counts.empty() || loads.counts[0].empty()) return "";
  HeatMap map;
  map.title = "Load of every expert in the last step";
  map.x_label = "expert";
  map.low = 0;
  map.high = 2;
  for (size_t i = 0; i < loads.counts.size(); ++i) {
    const std::vector<int64_t>& counts = loads.counts[i];
    double total = 0;
    for (const int64_t count : counts) total += static_cast<double>(count);
    const double mean = total / std::max<double>(1, static_cast<double>(counts.size()));
    std::vector<double>& cells = map.values.emplace_back();
    for (const int64_t count : counts) cells.push_back(mean > 0 ? static_cast<double>(count) / mean : 0);
    map.row_labels.push_back(absl::StrCat("layer ", loads.layers[i]));
  }
  map.low_label = "idle";
  map.high_label = "twice the mean or more";
  map.last_x = static_cast<double>(loads.counts[0].size()) - 1;
  return RenderHeatMap(map);
}

// Seconds by part, what is not accounted for under "other".
std::vector<std::pair<std::string, double>> TimeParts(const Summary& summary, const MetricsFile& metrics,
                                                      double& whole) {
  double step = 0, wait = 0, forward = 0, backward = 0, optimizer = 0;
  for (const StepMetrics& row : metrics.rows) {
    step += row.step_time_s.value_or(0);
    wait += row.data_wait_s.value_or(0);
    forward += row.forward_s.value_or(0);
    backward += row.backward_s.value_or(0);
    optimizer += row.optimizer_s.value_or(0);
  }
  TimeBreakdown time;
  bool timed = false;
  for (const StepMetrics& row : metrics.rows) {
    if (!row.time.has_value()) continue;
    timed = true;
    for (int i = 0; i < kTimeCategories; ++i) time.seconds[i] += row.time->seconds[i];
  }
  if (!timed && summary.time.total_s() > 0) {
    time = summary.time;
    step = summary.step_time_s;
    timed = true;
  }
  std::vector<std::pair<std::string, double>> parts;
  if (timed) {
    constexpr const char* kNames[] = {"matrix products", "expert products",   "attention",       "norms, positions",
                                      "SwiGLU",          "routing, dispatch", "embedding, loss", "optimizer",
                                      "copies, zeroing", "quantisation"};
    static_assert(std::size(kNames) == kTimeCategories);
    for (int i = 0; i < kTimeCategories; ++i) parts.emplace_back(kNames[i], time.seconds[i]);
  } else if (forward > 0) {
    parts = {{"forward", forward}, {"backward", backward}, {"optimizer", optimizer}};
  }
  parts.emplace_back("waiting for data", wait);
  double known = 0;
  for (const auto& part : parts) known += part.second;
  parts.emplace_back("other", std::max(0.0, step - known));
  whole = std::max(step, known);
  return parts;
}

std::string TimeChart(const Summary& summary, const MetricsFile& metrics) {
  double whole = 0;
  std::vector<std::pair<std::string, double>> parts = TimeParts(summary, metrics, whole);
  if (whole <= 0) return "";
  std::stable_sort(parts.begin(), parts.end() - 1, [](const auto& a, const auto& b) { return a.second > b.second; });
  BarChart chart{.title = "Where the time of a step goes", .bars = {}};
  for (const auto& [name, seconds] : parts) {
    const bool is_other = &name == &parts.back().first;
    chart.bars.push_back({name, seconds, absl::StrFormat("%.1f%%", 100 * seconds / whole), is_other ? 7 : 0});
  }
  return RenderBarChart(chart);
}

// As an image of its own, whose style stays its own.
std::string Picture(const std::string& svg, const char* what) {
  return absl::StrCat("<div style=\"overflow-x:auto\"><img alt=\"timeline, ", what,
                      "\" src=\"data:image/svg+xml;base64,", absl::Base64Escape(svg), "\"/></div>\n");
}

// A picture of each: what the pipeline did in one step, and what it would do at the same costs without other delays.
std::string TimelineSection(const std::optional<Timeline>& timeline) {
  if (!timeline.has_value()) return "";
  return Section(
      "A step of the pipeline",
      absl::StrCat(
          "<p>Step ", timeline->step, ", as its ranks recorded it: ", Fixed(1e3 * timeline->measured_s, 1),
          " ms, of which the ranks of the first pipeline compute ", Fixed(100 * (1 - timeline->measured_bubble), 0),
          " % and wait for other ranks inside a computation ", Fixed(100 * timeline->measured_exposed, 0),
          " %. Below, the same program at the same mean costs if nothing else delayed anyone: ",
          Fixed(1e3 * timeline->planned_s, 1), " ms, ", Fixed(100 * (1 - timeline->planned_bubble), 0), " %.</p>\n",
          Picture(timeline->measured_svg, "measured"), Picture(timeline->planned_svg, "planned")));
}

std::string ValidationTable(const MetricsFile& metrics) {
  std::vector<std::vector<std::string>> rows;
  for (const StepMetrics& row : metrics.rows) {
    if (!row.val_loss.has_value()) continue;
    const std::string bits = row.val_bits_per_byte.has_value() ? Fixed(*row.val_bits_per_byte, 4) : "";
    const std::string tokens = row.consumed_tokens.has_value() ? HumanCount(*row.consumed_tokens) : "";
    rows.push_back({absl::StrCat(row.step), tokens, Fixed(*row.val_loss, 4), bits});
  }
  if (rows.empty()) return "";
  return Folded("Validations as numbers", HtmlTable({"step", "tokens", "nats/token", "bits/byte"}, rows));
}

// The page is about the whole run; a trace that cannot be read is not worth failing for.
std::optional<Timeline> TimelineOf(FileSystem& fs, const std::string& run_dir, const Summary& summary) {
  const absl::StatusOr<config::LoadedConfig> loaded = config::ParseConfig(summary.config_text, "summary.json");
  if (!loaded.ok() || loaded->config.train().phase_size() == 0) return std::nullopt;
  const absl::StatusOr<Timeline> timeline = ReadTimeline(fs, run_dir, config::ResolvePhase(loaded->config, 0).layout);
  return timeline.ok() ? std::optional<Timeline>(*timeline) : std::nullopt;
}

}  // namespace

std::string RenderReport(const Summary& summary, const MetricsFile& metrics, const std::optional<Timeline>& timeline) {
  std::string html =
      PageOpen(summary.name.empty() ? "Training run" : summary.name, summary.exit_reason, HasFailed(summary));
  html += Verdict(summary, metrics);
  html += KeyFigures(MakeKeyFigures(summary));
  const std::vector<Series> layers = LayerCurves(metrics);
  html += Section(
      "Learning",
      absl::StrCat(
          ChartGrid({LossChart(metrics), ValueChart(metrics, &StepMetrics::lr, "Learning rate", "", 2, false, true),
                     ValueChart(metrics, &StepMetrics::grad_norm, "Gradient norm before clipping", "", 4, true, false),
                     ValueChart(metrics, &StepMetrics::tokens_per_sec, "Throughput", "tokens/s", 2, true, true)}),
          ValidationTable(metrics)));
  html += Section("Experts", ChartGrid({LoadChart(layers, metrics), LoadOverTime(layers), LastLoads(summary.loads)}));
  html += Section("Time", ChartGrid({TimeChart(summary, metrics)}));
  html += TimelineSection(timeline);
  html += Section("Parameters", Preformatted(summary.parameters));
  html += Section("Memory", Preformatted(summary.memory_table));
  html += Section("Data", Preformatted(summary.data_table));
  std::string config = Folded("The whole config", Preformatted(summary.config_text));
  if (!summary.numerics_hash.empty()) {
    absl::StrAppend(&config, "<p class=\"quiet\">numerics ", EscapeMarkup(summary.numerics_hash), "<br/>run ",
                    EscapeMarkup(summary.run_hash), "</p>\n");
  }
  html += Section("Config", config);
  return html + PageClose();
}

absl::Status WriteReport(FileSystem& fs, const std::string& run_dir) {
  ASSIGN_OR_RETURN(const MetricsFile metrics, ReadMetrics(fs, JoinPath(run_dir, "metrics.jsonl")));
  ASSIGN_OR_RETURN(Summary summary, ReadSummary(fs, run_dir));
  CatchUp(metrics, summary);
  return WriteFileDurably(fs, JoinPath(run_dir, "report.html"),
                          RenderReport(summary, metrics, TimelineOf(fs, run_dir, summary)));
}

}  // namespace shoestring
