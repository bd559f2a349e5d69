// The summary as JSON, and its upkeep while a run goes on.
#include "trainer/observe/summary.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kRecentSteps = 100;

std::string PathIn(const std::string& run_dir) { return JoinPath(run_dir, "summary.json"); }

// Each field of a kind, once: key and member.
template <typename T>
struct Field {
  const char* key;
  T Summary::*member;
};
constexpr Field<std::string> kTexts[] = {
    {"name", &Summary::name},
    {"device", &Summary::device},
    {"instruction_set", &Summary::instruction_set},
    {"exit_reason", &Summary::exit_reason},
    {"numerics_hash", &Summary::numerics_hash},
    {"run_hash", &Summary::run_hash},
    {"parameters", &Summary::parameters},
    {"memory_table", &Summary::memory_table},
    {"data_table", &Summary::data_table},
    {"config_text", &Summary::config_text},
};
constexpr Field<int64_t> kCounts[] = {
    {"generation", &Summary::generation}, {"steps", &Summary::steps}, {"total_steps", &Summary::total_steps}};
constexpr Field<double> kNumbers[] = {
    {"tokens", &Summary::tokens},
    {"wall_time_s", &Summary::wall_time_s},
    {"tokens_per_sec", &Summary::tokens_per_sec},
    {"cpu_hours", &Summary::cpu_hours},
    {"peak_gflops_per_rank", &Summary::peak_gflops_per_rank},
    {"gemm_peak_share", &Summary::gemm_peak_share},
    {"step_time_s", &Summary::step_time_s},
};
constexpr Field<std::optional<double>> kOptionals[] = {
    {"final_loss", &Summary::final_loss},
    {"final_val_loss", &Summary::final_val_loss},
    {"final_val_bits_per_byte", &Summary::final_val_bits_per_byte},
    {"best_val_loss", &Summary::best_val_loss},
    {"mean_max_over_mean_load", &Summary::mean_max_over_mean_load},
    {"mem_peak_gib", &Summary::mem_peak_gib},
};

Json BreakdownToJson(const TimeBreakdown& time) {
  Json object = Json::object();
  for (int i = 0; i < kTimeCategories; ++i) {
    const char* name = Name(static_cast<TimeCategory>(i));
    object[absl::StrCat(name, "_s")] = time.seconds[i];
    object[absl::StrCat(name, "_calls")] = time.calls[i];
  }
  return object;
}

TimeBreakdown BreakdownFromJson(const Json& object) {
  TimeBreakdown time;
  for (int i = 0; i < kTimeCategories; ++i) {
    const char* name = Name(static_cast<TimeCategory>(i));
    const auto seconds = object.find(absl::StrCat(name, "_s"));
    const auto calls = object.find(absl::StrCat(name, "_calls"));
    if (seconds != object.end() && seconds->is_number()) time.seconds[i] = seconds->get<double>();
    if (calls != object.end() && calls->is_number_integer()) time.calls[i] = calls->get<int64_t>();
  }
  return time;
}

// Nothing, unless it is a list of layers and as many lists of counts.
ExpertLoads LoadsFromJson(const Json& object) {
  ExpertLoads loads;
  const auto layers = object.find("layers");
  const auto counts = object.find("counts");
  if (layers == object.end() || counts == object.end() || !layers->is_array() || !counts->is_array()) return {};
  if (layers->size() != counts->size()) return {};
  for (size_t i = 0; i < layers->size(); ++i) {
    if (!(*layers)[i].is_number_integer() || !(*counts)[i].is_array()) return {};
    loads.layers.push_back((*layers)[i].get<int>());
    std::vector<int64_t>& row = loads.counts.emplace_back();
    for (const Json& count : (*counts)[i]) row.push_back(count.is_number() ? count.get<int64_t>() : 0);
  }
  return loads;
}

}  // namespace

std::string ToJson(const Summary& summary) {
  Json object;
  for (const auto& field : kTexts) object[field.key] = summary.*field.member;
  for (const auto& field : kCounts) object[field.key] = summary.*field.member;
  for (const auto& field : kNumbers) object[field.key] = summary.*field.member;
  for (const auto& field : kOptionals) {
    if ((summary.*field.member).has_value()) object[field.key] = *(summary.*field.member);
  }
  object["breakdown"] = BreakdownToJson(summary.time);
  object["expert_loads"] = Json{{"layers", summary.loads.layers}, {"counts", summary.loads.counts}};
  return object.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Summary> ParseSummary(absl::string_view json) {
  const Json object = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return absl::DataLossError("not a JSON object");
  Summary summary;
  const auto at = [&object](const char* key) {
    const auto found = object.find(key);
    return found == object.end() ? Json() : *found;
  };
  for (const auto& field : kTexts) {
    if (const Json value = at(field.key); value.is_string()) summary.*field.member = value.get<std::string>();
  }
  for (const auto& field : kCounts) {
    if (const Json value = at(field.key); value.is_number_integer()) summary.*field.member = value.get<int64_t>();
  }
  for (const auto& field : kNumbers) {
    if (const Json value = at(field.key); value.is_number()) summary.*field.member = value.get<double>();
  }
  for (const auto& field : kOptionals) {
    if (const Json value = at(field.key); value.is_number()) summary.*field.member = value.get<double>();
  }
  if (const Json value = at("breakdown"); value.is_object()) summary.time = BreakdownFromJson(value);
  if (const Json value = at("expert_loads"); value.is_object()) summary.loads = LoadsFromJson(value);
  return summary;
}

absl::StatusOr<Summary> ReadSummary(FileSystem& fs, const std::string& run_dir) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, PathIn(run_dir)));
  absl::StatusOr<Summary> summary = ParseSummary(text);
  if (!summary.ok()) return WithContext(summary.status(), PathIn(run_dir));
  return summary;
}

void AddRow(const StepMetrics& row, Summary& summary) {
  summary.steps = row.step;
  if (row.loss.has_value()) summary.final_loss = row.loss;
  if (row.consumed_tokens.has_value()) summary.tokens = *row.consumed_tokens;
  if (row.elapsed_s.has_value()) summary.wall_time_s = *row.elapsed_s;
  if (row.cpu_hours.has_value()) summary.cpu_hours = *row.cpu_hours;
  if (row.mem_peak_gib.has_value()) summary.mem_peak_gib = row.mem_peak_gib;
  if (!row.val_loss.has_value()) return;
  summary.final_val_loss = row.val_loss;
  summary.final_val_bits_per_byte = row.val_bits_per_byte;
  summary.best_val_loss = std::min(*row.val_loss, summary.best_val_loss.value_or(*row.val_loss));
}

void CatchUp(const MetricsFile& metrics, Summary& summary) {
  if (summary.exit_reason != "running") return;
  for (const StepMetrics& row : metrics.rows) AddRow(row, summary);
}

SummaryWriter::SummaryWriter(FileSystem& fs, const std::string& run_dir, const RunFacts& facts, Clock& clock)
    : fs_(fs),
      run_dir_(run_dir),
      clock_(clock),
      instruction_set_(facts.instruction_set),
      peak_gflops_(facts.peak_gflops_per_rank),
      start_s_(clock.MonotonicSeconds()) {
  summary_.instruction_set = instruction_set_;
  summary_.peak_gflops_per_rank = peak_gflops_;
}

absl::StatusOr<std::unique_ptr<SummaryWriter>> SummaryWriter::Open(FileSystem& fs, const std::string& run_dir,
                                                                   const RunFacts& facts, const MetricsFile& before,
                                                                   Clock& clock) {
  auto writer = std::unique_ptr<SummaryWriter>(new SummaryWriter(fs, run_dir, facts, clock));
  Summary& summary = writer->summary_;
  if (facts.resumed_step > 0) {
    // A start that goes back behind what was reached takes only what the metrics still hold.
    absl::StatusOr<Summary> old = ReadSummary(fs, run_dir);
    if (old.ok() && old->steps <= facts.resumed_step) summary = *std::move(old);
    const double wall_s = summary.wall_time_s;  // with what came after its last row: a checkpoint
    for (const StepMetrics& row : before.rows) {
      AddRow(row, summary);
      writer->AddLoad(row);
    }
    summary.wall_time_s = std::max(summary.wall_time_s, wall_s);
  }
  summary.name = facts.name;
  summary.device = facts.device;
  summary.exit_reason = "running";
  summary.generation = facts.generation;
  summary.steps = facts.resumed_step;
  summary.total_steps = facts.total_steps;
  summary.numerics_hash = facts.numerics_hash;
  summary.run_hash = facts.run_hash;
  summary.parameters = facts.parameters;
  summary.memory_table = facts.memory_table;
  summary.data_table = facts.data_table;
  summary.config_text = facts.config_text;
  writer->earlier_wall_s_ = summary.wall_time_s;
  RETURN_IF_ERROR(WriteFileDurably(fs, PathIn(run_dir), ToJson(summary)));
  return writer;
}

absl::Status SummaryWriter::OnRow(const StepMetrics& row) {
  has_rows_ = true;
  AddRow(row, summary_);
  AddLoad(row);
  if (row.step_time_s.has_value()) AddStep(row);
  return absl::OkStatus();
}

// Rates are those of one start, because another may use another machine.
void SummaryWriter::AddStep(const StepMetrics& row) {
  if (!std::exchange(has_steps_, true)) {
    summary_.instruction_set = instruction_set_;
    summary_.peak_gflops_per_rank = peak_gflops_;
    summary_.gemm_peak_share = 0;
    summary_.step_time_s = 0;
    summary_.time = {};
  }
  summary_.step_time_s += *row.step_time_s;
  step_tokens_ += row.tokens.value_or(0);
  if (row.gemm_peak_gflops.has_value()) summary_.peak_gflops_per_rank = *row.gemm_peak_gflops;
  if (row.tflops_per_rank.has_value()) gflop_ += 1e3 * *row.tflops_per_rank * *row.step_time_s;
  if (!row.time.has_value()) return;
  for (int i = 0; i < kTimeCategories; ++i) {
    summary_.time.seconds[i] += row.time->seconds[i];
    summary_.time.calls[i] += row.time->calls[i];
  }
}

void SummaryWriter::AddLoad(const StepMetrics& row) {
  if (!row.max_over_mean_load.has_value()) return;
  if (recent_loads_.size() < kRecentSteps) recent_loads_.push_back(0);
  recent_loads_[next_load_] = *row.max_over_mean_load;
  next_load_ = (next_load_ + 1) % kRecentSteps;
}

void SummaryWriter::OnLoads(const ExpertLoads& loads) { summary_.loads = loads; }

absl::Status SummaryWriter::OnEnd(const RunEnd& end) {
  summary_.exit_reason = end.exit_reason;
  if (has_rows_) summary_.wall_time_s = earlier_wall_s_ + clock_.MonotonicSeconds() - start_s_;
  if (has_steps_ && summary_.step_time_s > 0) {
    summary_.tokens_per_sec = step_tokens_ / summary_.step_time_s;
    if (summary_.peak_gflops_per_rank > 0) {
      summary_.gemm_peak_share = gflop_ / summary_.step_time_s / summary_.peak_gflops_per_rank;
    }
  }
  if (!recent_loads_.empty()) {
    double sum = 0.0;
    for (const double load : recent_loads_) sum += load;
    summary_.mean_max_over_mean_load = sum / static_cast<double>(recent_loads_.size());
  }
  return WriteFileDurably(fs_, PathIn(run_dir_), ToJson(summary_));
}

}  // namespace shoestring
