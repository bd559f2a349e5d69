// Refusals, each with its reason and its remedy; nothing that is asked for is ever replaced in silence.
#include "trainer/support.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "configs/resolve.h"
#include "kernels/limits.h"
#include "parallel/mesh.h"

namespace shoestring {
namespace {

// Whatever decides which parameters a rank holds, and of which it keeps the masters.
bool SamePlacement(const config::RunConfig& config, const config::LayoutConfig& a, const config::LayoutConfig& b) {
  const int layers = config.model().layers();
  return a.pipeline_ranks() == b.pipeline_ranks() && a.data_ranks() == b.data_ranks() &&
         a.expert_ranks() == b.expert_ranks() && a.zero1() == b.zero1() &&
         config::LayersPerStage(a, layers) == config::LayersPerStage(b, layers) && StageOrderOf(a) == StageOrderOf(b);
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

// `what`, a size that `field` sets, is as large as kernels/limits.h lets it be.
void CheckSize(const char* field, const char* what, int64_t size, int64_t largest, std::vector<std::string>& problems) {
  if (size <= largest) return;
  problems.push_back(absl::StrCat(field, ": ", what, " is ", size, ", and at most ", largest,
                                  " can be computed here; make it smaller"));
}

void CheckModel(const config::ModelConfig& model, std::vector<std::string>& problems) {
  const config::AttentionConfig& attention = model.attention();
  CheckSize("model.attention.qk_nope_head_dim", "qk_nope_head_dim + qk_rope_head_dim",
            int64_t{attention.qk_nope_head_dim()} + attention.qk_rope_head_dim(), kMaxHeadDim, problems);
  CheckSize("model.attention.v_head_dim", "it", attention.v_head_dim(), kMaxHeadDim, problems);
  CheckSize("model.moe.routed_experts", "it", model.moe().routed_experts(), kMaxExperts, problems);
  CheckSize("model.moe.active_experts", "it", model.moe().active_experts(), kMaxChosenExperts, problems);
}

// Inputs that norms and SwiGLU quantise as they make them.
void CheckQuantisedWidths(const config::ModelConfig& model, std::vector<std::string>& problems) {
  const auto check = [&](const char* field, const char* what, int64_t width) {
    CheckSize(field, what, width, kMaxQuantisedColumns, problems);
  };
  check("model.hidden", "a row in FP8", model.hidden());
  check("model.attention.q_lora_rank", "a row in FP8", model.attention().q_lora_rank());
  check("model.attention.kv_lora_rank", "a row in FP8", model.attention().kv_lora_rank());
  check("model.dense_ffn", "a row in FP8", model.dense_ffn());
  check("model.moe.expert_ffn", "a row in FP8", model.moe().expert_ffn());
  check("model.moe.shared_experts", "a row in FP8, shared_experts * expert_ffn,",
        int64_t{model.moe().shared_experts()} * model.moe().expert_ffn());
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
  CheckSize("precision.fp8.promotion_interval", "it", fp8.promotion_interval(), kMaxPromotionInterval, problems);
  CheckQuantisedWidths(config.model(), problems);
}

}  // namespace

std::vector<std::string> FindUnsupported(const config::RunConfig& config) {
  std::vector<std::string> problems;
  CheckModel(config.model(), problems);
  CheckPrecision(config, problems);
  const config::LayoutConfig first = config::ResolvePhase(config, 0).layout;
  for (int i = 0; i < config.train().phase_size(); ++i) {
    const config::PhaseSettings settings = config::ResolvePhase(config, i);
    const std::string path = absl::StrCat("train.phase[", i, "].layout");
    if (settings.layout.device() != config.layout().device()) {
      problems.push_back(absl::StrCat(path, ".device: a run stays on one device; set ", path,
                                      ".device=", config::LayoutConfig::Device_Name(config.layout().device())));
    }
    if (!SamePlacement(config, settings.layout, first)) {
      problems.push_back(absl::StrCat(path,
                                      ": parameters would move to other ranks in the middle of a run; take it out, end "
                                      "the run before this phase (--max-steps), and resume it with this layout as the "
                                      "run's own"));
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
