// The page: curves over depth, one a preset, and the numbers below them.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/numerics/probe_report.h"
#include "trainer/observe/page.h"
#include "trainer/observe/svg.h"

namespace shoestring {
namespace {

constexpr size_t kMostPoints = 100;  // of a curve

// Layers are one apart; a layer's tensors lie inside it in the order in which forward reaches them.
std::vector<double> DepthsOf(const std::vector<int>& layers, bool backward) {
  std::map<int, int> count, seen;
  for (const int layer : layers) ++count[layer];
  std::vector<double> depths;
  for (const int layer : layers) {
    const double part = (seen[layer]++ + 0.5) / count[layer];
    depths.push_back(layer + (backward ? 1 - part : part));
  }
  return depths;
}

// Points from left to right, as charts want them.
Series Curve(const std::string& name, int color, const std::vector<double>& depths, const std::vector<double>& values) {
  std::vector<size_t> order(depths.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return depths[a] < depths[b]; });
  Series series{.name = name, .x = {}, .y = {}, .color = color, .points = true};
  for (const size_t i : order) {
    // Exact tensors have no place on the axis.
    if (!std::isfinite(values[i])) continue;
    series.x.push_back(depths[i]);
    series.y.push_back(values[i]);
  }
  return series;
}

// The lowest value of each layer.
Series WorstOfLayers(const std::string& name, int color, const std::vector<int>& layers,
                     const std::vector<double>& values) {
  std::map<int, double> worst;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!std::isfinite(values[i])) continue;
    const auto [found, is_new] = worst.try_emplace(layers[i], values[i]);
    if (!is_new) found->second = std::min(found->second, values[i]);
  }
  Series series{.name = name, .x = {}, .y = {}, .color = color, .points = worst.size() <= kMostPoints};
  for (const auto& [layer, value] : worst) {
    series.x.push_back(layer);
    series.y.push_back(value);
  }
  return series;
}

// Of every tensor where there is room for them, else of the worst one of each layer.
std::string SnrChart(const ProbeResult& result, TensorGroup group, const std::string& title) {
  LineChart chart{.title = title, .x_label = "layer", .y_label = "dB", .series = {}};
  for (size_t p = 0; p < result.presets.size(); ++p) {
    std::vector<int> layers;
    std::vector<double> values;
    for (const MeasuredTensor& tensor : result.presets[p].tensors) {
      if (tensor.id.group != group) continue;
      layers.push_back(tensor.id.layer);
      values.push_back(tensor.signal.SnrDb());
    }
    const std::string& name = result.presets[p].preset.name;
    const int color = static_cast<int>(p);
    const bool fits = layers.size() <= kMostPoints;
    if (!fits) chart.title = title + ", worst of each layer";
    Series curve = fits ? Curve(name, color, DepthsOf(layers, group == TensorGroup::kGradient), values)
                        : WorstOfLayers(name, color, layers, values);
    if (!curve.x.empty()) chart.series.push_back(std::move(curve));
  }
  return chart.series.empty() ? "" : RenderLineChart(chart);
}

// The preset that variants are compared with: the report's recipe, or else the first that quantises; -1: none does.
int BaselineOf(const ProbeResult& result) {
  int first = -1;
  for (int p = static_cast<int>(result.presets.size()) - 1; p >= 0; --p) {
    if (result.presets[p].quantisers.empty()) continue;
    if (result.presets[p].preset.name == "fp8") return p;
    first = p;
  }
  return first;
}

// Where all FP8 recipes lie on one curve, their differences still tell them apart: the mean over each layer's tensors.
std::string DifferenceChart(const ProbeResult& result, int baseline, TensorGroup group, const std::string& title) {
  LineChart chart{.title = title, .x_label = "layer", .y_label = "dB, mean of a layer", .series = {}};
  const std::vector<MeasuredTensor>& base = result.presets[baseline].tensors;
  for (size_t p = 0; p < result.presets.size(); ++p) {
    if (static_cast<int>(p) == baseline || result.presets[p].quantisers.empty()) continue;
    std::map<int, std::pair<double, int>> sums;
    for (size_t i = 0; i < base.size(); ++i) {
      const double difference = result.presets[p].tensors[i].signal.SnrDb() - base[i].signal.SnrDb();
      if (base[i].id.group != group || !std::isfinite(difference)) continue;
      sums[base[i].id.layer].first += difference;
      sums[base[i].id.layer].second += 1;
    }
    Series series{
        .name = result.presets[p].preset.name, .x = {}, .y = {}, .color = static_cast<int>(p), .points = true};
    for (const auto& [layer, sum] : sums) {
      series.x.push_back(layer);
      series.y.push_back(sum.first / sum.second);
    }
    if (!sums.empty()) chart.series.push_back(std::move(series));
  }
  return chart.series.empty() ? "" : RenderLineChart(chart);
}

std::string Differences(const ProbeResult& result, int baseline) {
  return ChartGrid({DifferenceChart(result, baseline, TensorGroup::kActivation, "Activations"),
                    DifferenceChart(result, baseline, TensorGroup::kGradient, "Gradients of activations"),
                    DifferenceChart(result, baseline, TensorGroup::kWeightGradient, "Weight gradients")});
}

// The largest share of each layer's operands.
std::string UnderflowChart(const ProbeResult& result) {
  LineChart chart{.title = "Worst underflow of an operand in a layer",
                  .x_label = "layer",
                  .y_label = "% of what is not 0",
                  .from_zero = true,
                  .series = {}};
  for (size_t p = 0; p < result.presets.size(); ++p) {
    std::map<int, double> worst;
    for (const MeasuredQuantiser& q : result.presets[p].quantisers) {
      worst[q.layer] = std::max(worst[q.layer], 100 * q.loss.underflow_share());
    }
    Series series{
        .name = result.presets[p].preset.name, .x = {}, .y = {}, .color = static_cast<int>(p), .points = true};
    for (const auto& [layer, share] : worst) {
      series.x.push_back(layer);
      series.y.push_back(share);
    }
    if (!worst.empty()) chart.series.push_back(std::move(series));
  }
  return chart.series.empty() ? "" : RenderLineChart(chart);
}

std::string PresetTable(const ProbeResult& result) {
  std::vector<std::vector<std::string>> rows;
  for (const PresetResult& preset : result.presets) {
    std::vector<std::string>& row = rows.emplace_back();
    row = {preset.preset.name, absl::StrFormat("%+.2e", preset.losses.main - result.reference.main)};
    for (int g = 0; g < kTensorGroups; ++g) {
      const GroupSummary summary = Summarise(preset, static_cast<TensorGroup>(g));
      row.push_back(SnrText(summary.median_db));
      row.push_back(SnrText(summary.worst_db));
    }
    row.push_back(RoutingText(preset));
  }
  return HtmlTable({"preset", "loss − FP32", "activations: median", "worst", "gradients: median", "worst",
                    "weight gradients: median", "worst", "routing differs"},
                   rows);
}

std::string PresetWords(const ProbeResult& result) {
  std::string html;
  for (const PresetResult& preset : result.presets) {
    absl::StrAppend(&html, "<b>", EscapeMarkup(preset.preset.name), "</b> ", EscapeMarkup(preset.preset.summary),
                    "<br/>\n");
  }
  return absl::StrCat("<p class=\"quiet\">", html, "</p>\n");
}

std::string TensorTable(const ProbeResult& result) {
  std::vector<std::string> head = {"tensor", "elements"};
  for (const PresetResult& preset : result.presets) head.push_back(preset.preset.name);
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; !result.presets.empty() && i < result.presets[0].tensors.size(); ++i) {
    const MeasuredTensor& first = result.presets[0].tensors[i];
    std::vector<std::string>& row = rows.emplace_back();
    row = {first.id.name, absl::StrCat(first.signal.elements())};
    for (const PresetResult& preset : result.presets) row.push_back(SnrText(preset.tensors[i].signal.SnrDb()));
  }
  return HtmlTable(head, rows);
}

std::string OperandTable(const PresetResult& preset) {
  std::vector<std::vector<std::string>> rows;
  for (const MeasuredQuantiser& q : preset.quantisers) {
    rows.push_back({q.name,
                    absl::StrCat(Name(q.format), " ", q.tile.rows, "×", q.tile.cols, q.power_of_two ? " 2ⁿ" : ""),
                    absl::StrCat(q.loss.elements), SnrText(q.loss.noise.SnrDb()),
                    absl::StrFormat("%.3f%%", 100 * q.loss.saturated_share()),
                    absl::StrFormat("%.3f%%", 100 * q.loss.flushed_share()),
                    absl::StrFormat("%.3f%%", 100 * (q.loss.underflow_share() - q.loss.flushed_share())),
                    absl::StrFormat("%.1e", q.loss.scale_min), absl::StrFormat("%.1e", q.loss.scale_max)});
  }
  if (rows.empty()) return "";
  return Folded(absl::StrCat("Operands of ", preset.preset.name),
                HtmlTable({"operand", "format", "elements", "dB", "saturated", "flushed to 0", "subnormal",
                           "least scale", "largest scale"},
                          rows));
}

}  // namespace

std::string ProbePage(const ProbeResult& result, const ProbeSubject& subject) {
  std::string html = PageOpen("Numerics probe", "", false);
  absl::StrAppend(
      &html, "<p>", EscapeMarkup(subject.checkpoint), ", step ", subject.step, ": ", result.sequences, " sequences of ",
      result.sequence_length, " tokens, ", EscapeMarkup(subject.data),
      absl::StrFormat(". Signal to noise of each tensor against the same pass in FP32 (loss %.4f)",
                      result.reference.main),
      result.own_routing ? "; each preset routes for itself, and rows of experts are not compared."
                         : "; tokens go to the experts that FP32 chose.",
      "</p>\n<p class=\"quiet\">Layer −1 is the embedding; ",
      result.mtp_modules > 0 ? absl::StrCat("layers from ", result.main_layers, " on are MTP modules; ") : "",
      result.main_layers + result.mtp_modules,
      " is the final norm and the head. Tensors without an error have no point.</p>\n");
  html += Section("Presets", PresetTable(result) + PresetWords(result));
  html += Section("Signal to noise along the depth",
                  ChartGrid({SnrChart(result, TensorGroup::kActivation, "Forward: activations"),
                             SnrChart(result, TensorGroup::kGradient, "Backward: gradients of activations"),
                             SnrChart(result, TensorGroup::kWeightGradient, "Backward: weight gradients"),
                             UnderflowChart(result)}));
  const int baseline = BaselineOf(result);
  if (baseline >= 0) {
    html += Section(absl::StrCat("Better (above 0) or worse than ", result.presets[baseline].preset.name),
                    Differences(result, baseline));
  }
  std::string operands;
  for (const PresetResult& preset : result.presets) operands += OperandTable(preset);
  html += Section("Quantised operands", operands);
  html += Section("Every tensor, dB", TensorTable(result));
  return html + PageClose();
}

}  // namespace shoestring
