// The table on the screen, and JSON.
#include "trainer/numerics/probe_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

constexpr size_t kWorst = 10;

struct MedianAndWorst {
  double median_db = 0;
  double worst_db = 0;
};

// Both NaN if one is; +infinity if there is none.
MedianAndWorst SummaryOf(std::vector<double> snr) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  if (snr.empty()) return {kNone, kNone};
  const auto nan = std::find_if(snr.begin(), snr.end(), [](double db) { return std::isnan(db); });
  if (nan != snr.end()) return {*nan, *nan};
  std::sort(snr.begin(), snr.end());
  // The lower of two middle ones: a mean of them would hide that one is exact.
  return {snr[(snr.size() - 1) / 2], snr.front()};
}

// Columns as wide as they must be; the first set to the left, the others to the right.
std::string Aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, i == 0 ? "" : "  ", i == 0 ? row[i] + pad : pad + row[i]);
    }
    absl::StrAppend(&text, line.substr(0, line.find_last_not_of(' ') + 1), "\n");
  }
  return text;
}

std::string Percent(double share) { return absl::StrFormat("%.3f%%", 100 * share); }

// Presets quantise different operands: by name.
const MeasuredQuantiser* FindQuantiser(const PresetResult& preset, const std::string& name) {
  for (const MeasuredQuantiser& q : preset.quantisers) {
    if (q.name == name) return &q;
  }
  return nullptr;
}

std::string SummaryTable(const ProbeResult& result) {
  std::vector<std::vector<std::string>> rows = {
      {"", "loss", "activations", "", "gradients", "", "weight gradients", "", "routing"},
      {"preset", "- FP32", "median", "worst", "median", "worst", "median", "worst", "differs"}};
  for (const PresetResult& preset : result.presets) {
    std::vector<std::string>& row = rows.emplace_back();
    row = {preset.preset.name, absl::StrFormat("%+.1e", preset.losses.main - result.reference.main)};
    for (int g = 0; g < kTensorGroups; ++g) {
      const GroupSummary summary = Summarise(preset, static_cast<TensorGroup>(g));
      row.push_back(SnrText(summary.median_db));
      row.push_back(SnrText(summary.worst_db));
    }
    row.push_back(RoutingText(preset));
  }
  return Aligned(rows);
}

std::string WorstTable(const ProbeResult& result) {
  const std::vector<size_t> worst = WorstTensors(result, kWorst);
  if (worst.empty()) return "Every tensor is exact in every preset.\n";
  std::vector<std::vector<std::string>> rows = {{"worst tensors, dB"}};
  for (const PresetResult& preset : result.presets) rows[0].push_back(preset.preset.name);
  for (const size_t i : worst) {
    std::vector<std::string>& row = rows.emplace_back();
    row.push_back(result.presets[0].tensors[i].id.name);
    for (const PresetResult& preset : result.presets) row.push_back(SnrText(preset.tensors[i].signal.SnrDb()));
  }
  return Aligned(rows);
}

// Names of operands, those of which most underflows in some preset first.
std::vector<std::string> WorstOperands(const ProbeResult& result) {
  std::vector<std::pair<double, std::string>> all;
  for (const PresetResult& preset : result.presets) {
    for (const MeasuredQuantiser& q : preset.quantisers) {
      const auto same = [&](const auto& other) { return other.second == q.name; };
      const auto found = std::find_if(all.begin(), all.end(), same);
      if (found == all.end()) {
        all.emplace_back(q.loss.underflow_share(), q.name);
      } else {
        found->first = std::max(found->first, q.loss.underflow_share());
      }
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(kWorst, all.size()); ++i) names.push_back(all[i].second);
  return names;
}

std::string QuantiserSummary(const ProbeResult& result) {
  std::vector<std::vector<std::string>> rows = {
      {"operands", "count", "median dB", "worst dB", "saturated", "flushed", "subnormal", "worst by underflow"}};
  for (const PresetResult& preset : result.presets) {
    if (preset.quantisers.empty()) continue;
    std::vector<double> snr;
    double saturated = 0, flushed = 0, subnormal = 0, underflow = -1;
    std::string worst;
    for (const MeasuredQuantiser& q : preset.quantisers) {
      snr.push_back(q.loss.noise.SnrDb());
      saturated = std::max(saturated, q.loss.saturated_share());
      flushed = std::max(flushed, q.loss.flushed_share());
      subnormal = std::max(subnormal, q.loss.underflow_share() - q.loss.flushed_share());
      if (q.loss.underflow_share() <= underflow) continue;
      underflow = q.loss.underflow_share();
      worst = q.name;
    }
    const MedianAndWorst summary = SummaryOf(snr);
    rows.push_back({preset.preset.name, absl::StrCat(snr.size()), SnrText(summary.median_db), SnrText(summary.worst_db),
                    Percent(saturated), Percent(flushed), Percent(subnormal), worst});
  }
  return rows.size() == 1 ? "" : Aligned(rows);
}

std::string OperandTable(const ProbeResult& result) {
  std::vector<std::vector<std::string>> rows = {{"most underflow"}};
  for (const PresetResult& preset : result.presets) {
    if (!preset.quantisers.empty()) rows[0].push_back(preset.preset.name);
  }
  for (const std::string& name : WorstOperands(result)) {
    std::vector<std::string>& row = rows.emplace_back();
    row.push_back(name);
    for (const PresetResult& preset : result.presets) {
      if (preset.quantisers.empty()) continue;
      const MeasuredQuantiser* q = FindQuantiser(preset, name);
      row.push_back(q == nullptr ? "-" : Percent(q->loss.underflow_share()));
    }
  }
  return rows.size() == 1 ? "" : Aligned(rows);
}

// JSON knows neither infinity nor NaN.
nlohmann::ordered_json NumberOrNull(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json ToJson(const Signal& signal) {
  return {{"snr_db", NumberOrNull(signal.SnrDb())},
          {"exact", signal.SnrDb() == std::numeric_limits<double>::infinity()},
          {"relative_error", NumberOrNull(signal.RelativeError())},
          {"cosine", NumberOrNull(signal.Cosine())},
          {"max_error", NumberOrNull(signal.max_error())},
          {"max_reference", NumberOrNull(signal.max_reference())}};
}

nlohmann::ordered_json ToJson(const ProbeLosses& losses) {
  return {{"main", NumberOrNull(losses.main)},
          {"mtp", NumberOrNull(losses.mtp)},
          {"balance", NumberOrNull(losses.balance)}};
}

nlohmann::ordered_json ToJson(const MeasuredQuantiser& q) {
  nlohmann::ordered_json json = {{"name", q.name},
                                 {"layer", q.layer},
                                 {"format", Name(q.format)},
                                 {"tile", {q.tile.rows, q.tile.cols}},
                                 {"power_of_two", q.power_of_two},
                                 {"elements", q.loss.elements},
                                 {"saturated", q.loss.saturated_share()},
                                 {"flushed", q.loss.flushed_share()},
                                 {"underflow", q.loss.underflow_share()},
                                 {"scale_min", NumberOrNull(q.loss.scale_min)},
                                 {"scale_max", NumberOrNull(q.loss.scale_max)}};
  json.update(ToJson(q.loss.noise));
  return json;
}

nlohmann::ordered_json ToJson(const PresetResult& preset) {
  nlohmann::ordered_json json = {{"name", preset.preset.name},
                                 {"summary", preset.preset.summary},
                                 {"precision", preset.preset.precision.ShortDebugString()},
                                 {"losses", ToJson(preset.losses)},
                                 {"routed_tokens", preset.routed_tokens},
                                 {"differing_tokens", preset.differing_tokens}};
  for (int g = 0; g < kTensorGroups; ++g) {
    const TensorGroup group = static_cast<TensorGroup>(g);
    const GroupSummary summary = Summarise(preset, group);
    json["groups"][Name(group)] = {{"median_db", NumberOrNull(summary.median_db)},
                                   {"worst_db", NumberOrNull(summary.worst_db)},
                                   {"worst", summary.tensor}};
  }
  json["tensors"] = nlohmann::ordered_json::array();
  for (const MeasuredTensor& tensor : preset.tensors) {
    nlohmann::ordered_json row = {{"name", tensor.id.name},
                                  {"group", Name(tensor.id.group)},
                                  {"layer", tensor.id.layer},
                                  {"elements", tensor.signal.elements()}};
    row.update(ToJson(tensor.signal));
    json["tensors"].push_back(std::move(row));
  }
  json["quantised"] = nlohmann::ordered_json::array();
  for (const MeasuredQuantiser& q : preset.quantisers) json["quantised"].push_back(ToJson(q));
  return json;
}

}  // namespace

std::string SnrText(double snr_db) {
  if (std::isnan(snr_db)) return "NaN";
  if (std::isinf(snr_db)) return snr_db > 0 ? "exact" : "lost";
  return absl::StrFormat("%.1f", snr_db);
}

std::string RoutingText(const PresetResult& preset) {
  if (preset.routed_tokens == 0) return "-";
  return absl::StrFormat(
      "%.2f%%", 100.0 * static_cast<double>(preset.differing_tokens) / static_cast<double>(preset.routed_tokens));
}

GroupSummary Summarise(const PresetResult& preset, TensorGroup group) {
  std::vector<double> all;
  std::string tensor_of_worst;
  double worst = std::numeric_limits<double>::infinity();
  for (const MeasuredTensor& tensor : preset.tensors) {
    if (tensor.id.group != group) continue;
    const double snr = tensor.signal.SnrDb();
    if (snr < worst || (std::isnan(snr) && !std::isnan(worst))) {
      worst = snr;
      tensor_of_worst = tensor.id.name;
    }
    all.push_back(snr);
  }
  const MedianAndWorst summary = SummaryOf(std::move(all));
  return {summary.median_db, summary.worst_db, tensor_of_worst};
}

std::vector<size_t> WorstTensors(const ProbeResult& result, size_t count) {
  std::vector<std::pair<double, size_t>> all;
  for (size_t i = 0; !result.presets.empty() && i < result.presets[0].tensors.size(); ++i) {
    double worst = std::numeric_limits<double>::infinity();
    for (const PresetResult& preset : result.presets) {
      const double snr = preset.tensors[i].signal.SnrDb();
      worst = std::isnan(snr) ? -std::numeric_limits<double>::infinity() : std::min(worst, snr);
    }
    if (worst < std::numeric_limits<double>::infinity()) all.emplace_back(worst, i);
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<size_t> indices;
  for (size_t i = 0; i < std::min(count, all.size()); ++i) indices.push_back(all[i].second);
  return indices;
}

std::string ProbeTable(const ProbeResult& result, const ProbeSubject& subject) {
  std::string text = absl::StrFormat(
      "%s, step %d; %d sequences of %d tokens, %s\n"
      "signal to noise in dB against FP32 (loss %.4f)%s\n\n",
      subject.checkpoint, subject.step, result.sequences, result.sequence_length, subject.data, result.reference.main,
      result.own_routing ? "; each preset's own routing: rows of experts are not compared"
                         : ", routed as FP32 routes; 'exact': no bit differs");
  absl::StrAppend(&text, SummaryTable(result), "\n", WorstTable(result));
  const std::string operands = QuantiserSummary(result);
  if (!operands.empty()) absl::StrAppend(&text, "\n", operands, "\n", OperandTable(result));
  absl::StrAppend(&text, "\n");
  size_t width = 0;
  for (const PresetResult& preset : result.presets) width = std::max(width, preset.preset.name.size());
  for (const PresetResult& preset : result.presets) {
    absl::StrAppendFormat(&text, "%-*s  %s\n", static_cast<int>(width), preset.preset.name, preset.preset.summary);
  }
  return text;
}

std::string ProbeJson(const ProbeResult& result, const ProbeSubject& subject) {
  nlohmann::ordered_json json = {{"format", 1},
                                 {"checkpoint", subject.checkpoint},
                                 {"step", subject.step},
                                 {"data", subject.data},
                                 {"sequences", result.sequences},
                                 {"sequence_length", result.sequence_length},
                                 {"first_sample", result.first_sample},
                                 {"routing", result.own_routing ? "own" : "reference"},
                                 {"reference_losses", ToJson(result.reference)}};
  json["presets"] = nlohmann::ordered_json::array();
  for (const PresetResult& preset : result.presets) json["presets"].push_back(ToJson(preset));
  // Names of files and presets need not be UTF-8.
  return json.dump(1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace shoestring
