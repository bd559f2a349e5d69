// Rows of metrics to and from JSON, by the table of columns.
#include "trainer/observe/step_metrics.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

constexpr MetricColumn kColumns[] = {
    {"loss", "train/loss", false, &StepMetrics::loss},
    {"loss_mtp", "train/loss_mtp", false, &StepMetrics::loss_mtp},
    {"loss_balance", "train/loss_balance", false, &StepMetrics::loss_balance},
    {"val_loss", "val/loss", false, &StepMetrics::val_loss},
    {"val_bits_per_byte", "val/bits_per_byte", false, &StepMetrics::val_bits_per_byte},
    {"grad_norm", "train/grad_norm", false, &StepMetrics::grad_norm},
    {"lr", "train/lr", false, &StepMetrics::lr},
    {"bias_speed", "train/bias_speed", false, &StepMetrics::bias_speed},
    {"mtp_weight", "train/mtp_weight", false, &StepMetrics::mtp_weight},
    {"tokens", "train/tokens", true, &StepMetrics::tokens},
    {"consumed_tokens", "train/consumed_tokens", true, &StepMetrics::consumed_tokens},
    {"step_time_s", "time/step_s", false, &StepMetrics::step_time_s},
    {"data_wait_s", "time/data_wait_s", false, &StepMetrics::data_wait_s},
    {"forward_s", "time/forward_s", false, &StepMetrics::forward_s},
    {"backward_s", "time/backward_s", false, &StepMetrics::backward_s},
    {"optimizer_s", "time/optimizer_s", false, &StepMetrics::optimizer_s},
    {"val_time_s", "time/validation_s", false, &StepMetrics::val_time_s},
    {"bubble_frac", "time/bubble_frac", false, &StepMetrics::bubble_frac},
    {"exposed_comm_s", "time/exposed_comm_s", false, &StepMetrics::exposed_comm_s},
    {"tokens_per_sec", "speed/tokens_per_sec", false, &StepMetrics::tokens_per_sec},
    {"tokens_per_sec_per_rank", "speed/tokens_per_sec_per_rank", false, &StepMetrics::tokens_per_sec_per_rank},
    {"tflops_per_rank", "speed/tflops_per_rank", false, &StepMetrics::tflops_per_rank},
    {"gemm_flops_share", "speed/gemm_flops_share", false, &StepMetrics::gemm_flops_share},
    {"gemm_peak_share", "speed/gemm_peak_share", false, &StepMetrics::gemm_peak_share},
    {"gemm_peak_gflops", "speed/gemm_peak_gflops", false, &StepMetrics::gemm_peak_gflops},
    {"mem_peak_gib", "memory/peak_gib", false, &StepMetrics::mem_peak_gib},
    {"moe/max_over_mean_load", "moe/max_over_mean_load", false, &StepMetrics::max_over_mean_load},
    {"moe/bias_abs_max", "moe/bias_abs_max", false, &StepMetrics::bias_abs_max},
    {"moe/dropped", "moe/dropped", true, &StepMetrics::dropped},
    {"skipped_steps_total", "train/skipped_steps_total", true, &StepMetrics::skipped_steps_total},
    {"elapsed_s", "time/elapsed_s", false, &StepMetrics::elapsed_s},
    {"cpu_hours", "time/cpu_hours", false, &StepMetrics::cpu_hours},
    {"eta_s", "time/eta_s", false, &StepMetrics::eta_s},
};

std::string TimeKey(int category) { return absl::StrCat("time/", Name(static_cast<TimeCategory>(category)), "_s"); }

std::optional<double> NumberAt(const Json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

template <typename T>
std::vector<T> NumbersAt(const Json& object, const char* key) {
  std::vector<T> numbers;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return numbers;
  for (const Json& value : *found) {
    if (!value.is_number()) return {};
    numbers.push_back(value.get<T>());
  }
  return numbers;
}

// Adds what `later` knows to a row; where both know, `later` does.
void Merge(const StepMetrics& later, StepMetrics& row) {
  row.step = later.step;
  row.generation = later.generation;
  for (const MetricColumn& column : kColumns) {
    if ((later.*column.value).has_value()) row.*column.value = later.*column.value;
  }
  if (!later.layer_loads.empty()) {
    row.moe_layers = later.moe_layers;
    row.layer_loads = later.layer_loads;
  }
  if (later.time.has_value()) row.time = later.time;
}

}  // namespace

absl::Span<const MetricColumn> MetricColumns() { return kColumns; }

std::string ToJsonLine(const StepMetrics& row) {
  Json object;
  object["step"] = row.step;
  object["generation"] = row.generation;
  for (const MetricColumn& column : kColumns) {
    const std::optional<double>& value = row.*column.value;
    if (!value.has_value() || !std::isfinite(*value)) continue;
    if (column.is_integer) {
      object[column.key] = static_cast<int64_t>(*value);
    } else {
      object[column.key] = *value;
    }
  }
  if (!row.layer_loads.empty()) {
    object["moe/layers"] = row.moe_layers;
    object["moe/max_over_mean_load_by_layer"] = row.layer_loads;
  }
  if (row.time.has_value()) {
    for (int i = 0; i < kTimeCategories; ++i) object[TimeKey(i)] = row.time->seconds[i];
  }
  return object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<StepMetrics> ParseJsonLine(absl::string_view line) {
  const Json object = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const auto step = object.find("step");
  if (step == object.end() || !step->is_number_integer()) return absl::InvalidArgumentError("no integer \"step\"");
  StepMetrics row;
  row.step = step->get<int64_t>();
  row.generation = static_cast<int64_t>(NumberAt(object, "generation").value_or(0));
  for (const MetricColumn& column : kColumns) row.*column.value = NumberAt(object, column.key);
  row.moe_layers = NumbersAt<int>(object, "moe/layers");
  row.layer_loads = NumbersAt<double>(object, "moe/max_over_mean_load_by_layer");
  if (row.moe_layers.size() != row.layer_loads.size()) {
    row.moe_layers.clear();
    row.layer_loads.clear();
  }
  TimeBreakdown time;
  bool timed = false;
  for (int i = 0; i < kTimeCategories; ++i) {
    const std::optional<double> seconds = NumberAt(object, TimeKey(i));
    timed |= seconds.has_value();
    time.seconds[i] = seconds.value_or(0);
  }
  if (timed) row.time = time;
  return row;
}

MetricsFile ParseMetrics(absl::string_view text) {
  MetricsFile file;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == absl::string_view::npos) break;  // torn: whoever wrote it died in the middle
    const absl::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    absl::StatusOr<StepMetrics> row = ParseJsonLine(line);
    if (!row.ok()) {
      ++file.skipped_lines;
      continue;
    }
    bool again = false;  // a step that an earlier start took already
    while (!file.rows.empty() && (file.rows.back().step > row->step || (again && file.rows.back().step == row->step))) {
      file.rows.pop_back();
      again = true;
    }
    if (file.rows.empty() || file.rows.back().step < row->step) {
      file.rows.push_back(*std::move(row));
    } else {
      Merge(*row, file.rows.back());
    }
  }
  return file;
}

std::optional<StepMetrics> NewestValues(const MetricsFile& file) {
  if (file.rows.empty()) return std::nullopt;
  StepMetrics newest;
  for (const StepMetrics& row : file.rows) Merge(row, newest);
  return newest;
}

absl::StatusOr<MetricsFile> ReadMetrics(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path, kMaxMetricsBytes));
  return ParseMetrics(text);
}

}  // namespace shoestring
