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

// Inputs and gradients are grouped a token at a time, as experts get them.
void CheckTokenTile(const config::Tile& tile, const std::string& field, std::vector<std::string>& problems) {
  if (tile.rows() == 1) return;
  problems.push_back(absl::StrCat(field, ".rows: tokens have scales of their own here, not ", tile.rows(),
                                  " together; set ", field, ".rows=1"));
}

void CheckPairs(const config::RunConfig& config, std::vector<std::string>& problems) {
  const config::ModelConfig& model = config.model();
  const config::Fp8Recipe& fp8 = config.precision().fp8();
  const auto check = [&](const char* cached, config::Fp8Recipe::Format format, const char* field, int64_t width) {
    if (format != config::Fp8Recipe::E5M6 || width % 2 == 0) return;
    problems.push_back(absl::StrCat("precision.fp8.", cached, ": E5M6 keeps values in pairs, and model.", field, "=",
                                    width, " leaves an odd row; make it even"));
  };
  const config::AttentionConfig& attention = model.attention();
  if (model.heads() % 2 != 0) {
    check("cached_attention_output", fp8.cached_attention_output(), "attention.v_head_dim", attention.v_head_dim());
  }
  const auto linear = [&](const char* field, int64_t width) {
    check("cached_linear_input", fp8.cached_linear_input(), field, width);
  };
  linear("hidden", model.hidden());
  linear("attention.q_lora_rank", attention.q_lora_rank());
  linear("attention.kv_lora_rank", attention.kv_lora_rank());
  linear("dense_ffn", model.dense_ffn());
  linear("moe.expert_ffn", model.moe().expert_ffn());
}

void CheckPrecision(const config::RunConfig& config, std::vector<std::string>& problems) {
  if (config.precision().mode() != config::PrecisionConfig::FP8) return;
  const config::Fp8Recipe& fp8 = config.precision().fp8();
  CheckTokenTile(fp8.activation_tile(), "precision.fp8.activation_tile", problems);
  CheckTokenTile(fp8.gradient_tile(), "precision.fp8.gradient_tile", problems);
  if (fp8.combine_format() != config::Fp8Recipe::BF16) {
    problems.push_back(absl::StrCat("precision.fp8.combine_format: results travel in BF16 here, not ",
                                    config::Fp8Recipe::Format_Name(fp8.combine_format()),
                                    "; set precision.fp8.combine_format=BF16"));
  }
  CheckPairs(config, problems);
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
  CheckPrecision(config, problems);
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
