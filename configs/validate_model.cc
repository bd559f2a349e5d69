// Rules of the model's shape and of its number formats.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "configs/validate_rules.h"

namespace shoestring::config {
namespace {

// Above this a run cannot be meant, and products of shapes stay far from the end of 64 bits.
constexpr double kMaxParameters = 1e15;

// Matrices only, near enough for a bound; the exact count is the parameter table's. In floating point throughout, since
// nothing has been said yet about the numbers that are multiplied here.
double ApproximateParameters(const ModelConfig& model) {
  const AttentionConfig& a = model.attention();
  const MoeConfig& moe = model.moe();
  const double d = model.hidden();
  const double heads = model.heads();
  const double nope = a.qk_nope_head_dim();
  const double rope = a.qk_rope_head_dim();
  const double value = a.v_head_dim();
  const double q_rank = a.q_lora_rank();
  const double kv_rank = a.kv_lora_rank();
  const double queries = heads * (nope + rope);
  const double attention = (q_rank > 0 ? q_rank * (d + queries) : d * queries) + d * (kv_rank + rope) +
                           heads * kv_rank * (nope + value) + heads * value * d;
  const double experts = 3.0 * d * moe.expert_ffn() * (1.0 * moe.routed_experts() + moe.shared_experts());
  const double dense = 3.0 * d * model.dense_ffn();
  const double layers = 1.0 * model.layers() + model.mtp_depth();
  return 2.0 * model.vocab_size() * d + layers * (attention + std::max(experts, dense));
}

void ValidateExperts(const MoeConfig& moe, Findings& findings) {
  const int64_t experts = moe.routed_experts();
  const int64_t groups = moe.groups();
  if (!Divides(groups, experts)) {
    findings.Add("model.moe.groups", absl::StrCat(groups, " groups do not divide ", experts, " routed experts"),
                 "groups are equal runs of experts");
    return;
  }
  findings.AddUnless(moe.groups_kept() <= groups, "model.moe.groups_kept",
                     absl::StrCat("keeps ", moe.groups_kept(), " of ", groups, " groups"), "keep at most all");
  if (experts <= 0 || groups <= 0) return;
  const int64_t reachable = experts / groups * moe.groups_kept();
  findings.AddUnless(moe.active_experts() <= reachable, "model.moe.active_experts",
                     absl::StrCat("a token goes to ", moe.active_experts(), " experts but reaches ", reachable),
                     "lower active_experts or keep more groups");
  const bool ranked = moe.groups_kept() < groups && moe.group_score() == MoeConfig::TOP2_SUM && moe.has_group_score();
  findings.AddUnless(!ranked || experts / groups >= 2, "model.moe.group_score", "TOP2_SUM needs two experts in a group",
                     "make fewer groups, or use MAX");
}

void ValidateKinds(const ModelConfig& model, Findings& findings) {
  findings.AddUnless(model.dense_layers() <= model.layers(), "model.dense_layers",
                     absl::StrCat(model.dense_layers(), " of ", model.layers(), " layers"), "at most all are dense");
  findings.AddUnless(model.dense_layers() <= 0 || model.has_dense_ffn(), "model.dense_ffn", "is not set",
                     "dense layers need their width");
  findings.AddUnless(model.dense_layers() >= model.layers() || model.has_moe(), "model.moe", "is not set",
                     "the layers after dense_layers need experts; or make all layers dense");
  findings.AddUnless(!model.has_moe() || model.dense_layers() < model.layers(), "model.moe",
                     "no layer has experts, since all are dense", "lower dense_layers or take moe out");
}

void ValidateOperands(const Fp8Recipe& fp8, Findings& findings) {
  const auto operand = [&](const char* name, Fp8Recipe::Format format) {
    findings.AddUnless(format == Fp8Recipe::E4M3 || format == Fp8Recipe::E5M2, absl::StrCat("precision.fp8.", name),
                       absl::StrCat(Fp8Recipe::Format_Name(format), " is not an operand of an FP8 product"),
                       "E4M3 or E5M2");
  };
  if (fp8.has_activation_format()) operand("activation_format", fp8.activation_format());
  if (fp8.has_weight_format()) operand("weight_format", fp8.weight_format());
  if (fp8.has_gradient_format()) operand("gradient_format", fp8.gradient_format());
  const auto sent = [&](const char* name, Fp8Recipe::Format format) {
    findings.AddUnless(format != Fp8Recipe::E5M6, absl::StrCat("precision.fp8.", name), "E5M6 is never sent",
                       "BF16, E4M3 or E5M2");
  };
  sent("dispatch_format", fp8.dispatch_format());
  sent("dispatch_gradient_format", fp8.dispatch_gradient_format());
  sent("combine_format", fp8.combine_format());
}

// Scales change from tile to tile along the contracted dimension, so a promotion cannot span two of them.
void ValidateTiles(const Fp8Recipe& fp8, Findings& findings) {
  const int interval = fp8.promotion_interval();
  findings.AddUnless(Divides(32, interval), "precision.fp8.promotion_interval",
                     absl::StrCat(interval, " is not a multiple of 32"), "tensor cores take 32 products at a time");
  const auto contracted = [&](const char* name, int length) {
    findings.AddUnless(Divides(interval, length), absl::StrCat("precision.fp8.", name),
                       absl::StrCat("promotion_interval ", interval, " does not divide the tile's ", length),
                       "a promotion lies inside one tile along the contracted dimension");
  };
  contracted("activation_tile.columns", fp8.activation_tile().columns());
  contracted("gradient_tile.columns", fp8.gradient_tile().columns());
  contracted("weight_gradient_tile.rows", fp8.weight_gradient_tile().rows());
  contracted("weight_tile.columns", fp8.weight_tile().columns());  // forward
  contracted("weight_tile.rows", fp8.weight_tile().rows());        // input gradient
}

void ValidateStorage(const Fp8Recipe& fp8, Findings& findings) {
  const auto scaled = [&](const char* name, Fp8Recipe::Format format, const char* scale_name, bool power_of_two) {
    findings.AddUnless(format != Fp8Recipe::E5M6 || power_of_two, absl::StrCat("precision.fp8.", name),
                       "E5M6 has power-of-two scales", absl::StrCat("set ", scale_name, " to true"));
  };
  scaled("cached_linear_input", fp8.cached_linear_input(), "power_of_two_activation", fp8.power_of_two_activation());
  scaled("cached_attention_output", fp8.cached_attention_output(), "power_of_two_attention_output",
         fp8.power_of_two_attention_output());
  scaled("cached_swiglu_input", fp8.cached_swiglu_input(), "power_of_two_activation", fp8.power_of_two_activation());
}

}  // namespace

void ValidateYarn(const YarnConfig& yarn, const std::string& path, Findings& findings) {
  findings.AddUnless(!yarn.has_beta_fast() || !yarn.has_beta_slow() || yarn.beta_fast() > yarn.beta_slow(),
                     absl::StrCat(path, ".beta_fast"),
                     absl::StrCat(yarn.beta_fast(), " is not above beta_slow ", yarn.beta_slow()),
                     "fast rotations are kept, slow ones stretched");
}

void ValidateModel(const ModelConfig& model, Findings& findings) {
  const int rope = model.attention().qk_rope_head_dim();
  findings.AddUnless(rope % 2 == 0, "model.attention.qk_rope_head_dim", absl::StrCat(rope, " is odd"),
                     "RoPE turns pairs of channels");
  ValidateKinds(model, findings);
  if (model.has_moe()) ValidateExperts(model.moe(), findings);
  if (model.has_yarn()) ValidateYarn(model.yarn(), "model.yarn", findings);
  const auto token = [&](const char* name, int id) {
    findings.AddUnless(model.vocab_size() <= 0 || id < model.vocab_size(), absl::StrCat("model.", name),
                       absl::StrCat("token ", id, " is not one of ", model.vocab_size()), "ids begin at 0");
  };
  token("bos_id", model.bos_id());
  token("eos_id", model.eos_id());
  const double parameters = ApproximateParameters(model);
  findings.AddUnless(parameters <= kMaxParameters, "model", absl::StrCat("has about ", parameters, " parameters"),
                     absl::StrCat("at most ", kMaxParameters));
}

void ValidatePrecision(const PrecisionConfig& precision, Findings& findings) {
  const bool is_fp8 = precision.has_mode() && precision.mode() == PrecisionConfig::FP8;
  findings.AddUnless(!is_fp8 || precision.has_fp8(), "precision.fp8", "is not set", "the FP8 mode needs its recipe");
  findings.AddUnless(is_fp8 || !precision.has_fp8(), "precision.fp8", "is set, but the mode is not FP8",
                     "take it out, or say mode: FP8");
  const bool fp32 = precision.has_mode() && precision.mode() == PrecisionConfig::FP32;
  findings.AddUnless(!fp32 || precision.moments() == PrecisionConfig::MOMENTS_FP32, "precision.moments",
                     "the FP32 mode keeps nothing in BF16", "say moments: MOMENTS_FP32");
  if (!precision.has_fp8()) return;
  ValidateOperands(precision.fp8(), findings);
  ValidateTiles(precision.fp8(), findings);
  ValidateStorage(precision.fp8(), findings);
}

}  // namespace shoestring::config
