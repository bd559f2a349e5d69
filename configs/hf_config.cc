// Bodies of the Hugging Face config.json import and export.
#include "configs/hf_config.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/strict_json.h"
#include "configs/problem.h"
#include "configs/resolve.h"
#include "nlohmann/json.hpp"

namespace shoestring::config {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr int64_t kDefaultPositions = 4096;

// Reads typed fields and collects what is wrong with them; never throws, as each type is asked for before it is taken.
class Reader {
 public:
  Reader(const Json& json, const std::string& file, std::vector<Problem>& problems)
      : json_(json), file_(file), problems_(problems) {}

  // Null counts as absent, as transformers writes it.
  bool Has(const char* name) const { return json_.contains(name) && !json_.at(name).is_null(); }

  int32_t Int(const char* name) {
    if (Has(name) && json_.at(name).is_number_integer()) {
      const auto value = json_.at(name).get<int64_t>();
      if (value >= 0 && value <= std::numeric_limits<int32_t>::max()) return static_cast<int32_t>(value);
    }
    Add(name, json_.contains(name) ? absl::StrCat("is ", Text(name)) : "is not set", "a whole number, not negative");
    return 0;
  }
  int32_t IntOr(const char* name, int32_t otherwise) { return Has(name) ? Int(name) : otherwise; }
  // Null is refused, as transformers fails on it.
  int32_t IntUnlessAbsent(const char* name, int32_t otherwise) { return json_.contains(name) ? Int(name) : otherwise; }
  // Null says that there is none.
  int32_t CountUnlessAbsent(const char* name, int32_t otherwise) {
    return json_.contains(name) ? IntOr(name, 0) : otherwise;
  }

  double Number(const char* name) {
    if (Has(name) && json_.at(name).is_number()) return json_.at(name).get<double>();
    Add(name, Has(name) ? absl::StrCat("is ", Text(name)) : "is not set", "a number");
    return 0;
  }
  double NumberOr(const char* name, double otherwise) { return Has(name) ? Number(name) : otherwise; }

  bool BoolOr(const char* name, bool otherwise) {
    if (!Has(name)) return otherwise;
    if (json_.at(name).is_boolean()) return json_.at(name).get<bool>();
    Add(name, absl::StrCat("is ", Text(name)), "true or false");
    return otherwise;
  }

  std::string StringOr(const char* name, const std::string& otherwise) {
    if (!Has(name)) return otherwise;
    if (json_.at(name).is_string()) return json_.at(name).get<std::string>();
    Add(name, absl::StrCat("is ", Text(name)), "a string");
    return otherwise;
  }

  // Refuses a field that is present with any value but this one.
  void Only(const char* name, const Json& allowed) {
    if (Has(name) && json_.at(name) != allowed) {
      Add(name, absl::StrCat("is ", Text(name)), absl::StrCat("only ", Dump(allowed), " can be trained here"));
    }
  }

  void Add(const char* name, std::string problem, std::string hint) {
    problems_.push_back({file_, name, std::move(problem), std::move(hint)});
  }

  const Json& json() const { return json_; }
  const std::string& file() const { return file_; }

 private:
  static std::string Dump(const Json& value) { return value.dump(-1, ' ', true, Json::error_handler_t::replace); }
  std::string Text(const char* name) const { return Dump(json_.at(name)).substr(0, 100); }

  const Json& json_;
  const std::string& file_;
  std::vector<Problem>& problems_;
};

// What transformers' configuration class of each architecture takes for fields that are absent.
struct Defaults {
  int32_t q_lora_rank;
  int32_t first_k_dense_replace;
  int32_t n_shared_experts;
  int32_t bos_token_id;
  int32_t eos_token_id;
};
constexpr Defaults kV3Defaults = {1536, 3, 1, 0, 1};
constexpr Defaults kV2Defaults = {1536, 0, 2, 1, 2};

void ReadAttention(Reader& in, const Defaults& defaults, ModelConfig& model) {
  AttentionConfig& attention = *model.mutable_attention();
  attention.set_qk_nope_head_dim(in.Int("qk_nope_head_dim"));
  attention.set_qk_rope_head_dim(in.Int("qk_rope_head_dim"));
  attention.set_v_head_dim(in.Int("v_head_dim"));
  attention.set_q_lora_rank(in.CountUnlessAbsent("q_lora_rank", defaults.q_lora_rank));
  attention.set_kv_lora_rank(in.Int("kv_lora_rank"));
}

// What multiplies cosine and sine: in the released code, and in this program.
double RopeAmplitude(const YarnConfig& yarn) {
  return YarnTemperature(yarn.factor(), yarn.mscale()) / YarnTemperature(yarn.factor(), yarn.mscale_all_dim());
}

// And in transformers, where no attention_factor says it: a zero counts as absent there, and both must be present. The
// softmax scale is the same in all three, as the temperature of mscale_all_dim 0 is 1.
double TransformersAmplitude(const YarnConfig& yarn, bool has_mscale = true) {
  const bool both = has_mscale && yarn.mscale() != 0 && yarn.mscale_all_dim() != 0;
  return both ? RopeAmplitude(yarn) : YarnTemperature(yarn.factor(), 1);
}

bool NearlyEqual(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }

void ReadYarn(Reader& rope, YarnConfig& yarn) {
  yarn.set_factor(rope.Number("factor"));
  yarn.set_original_length(rope.Int("original_max_position_embeddings"));
  yarn.set_beta_fast(rope.NumberOr("beta_fast", 32));
  yarn.set_beta_slow(rope.NumberOr("beta_slow", 1));
  yarn.set_mscale(rope.NumberOr("mscale", 1));
  yarn.set_mscale_all_dim(rope.NumberOr("mscale_all_dim", 0));
  rope.Only("truncate", true);
  const double implied = TransformersAmplitude(yarn, rope.Has("mscale"));
  const double theirs = rope.NumberOr("attention_factor", implied), ours = RopeAmplitude(yarn);
  if (NearlyEqual(theirs, ours)) return;
  rope.Add("attention_factor",
           absl::StrFormat("is %s%.9g, but mscale and mscale_all_dim mean %.9g",
                           rope.Has("attention_factor") ? "" : "not set, which transformers takes for ", theirs, ours),
           absl::StrFormat("say %.9g, or others of those two", ours));
}

// transformers 4 has rope_theta and rope_scaling, transformers 5 puts both in rope_parameters and prefers the former
// where a file has both.
void ReadRope(Reader& in, std::vector<Problem>& problems, ModelConfig& model) {
  const bool older = in.Has("rope_scaling") && !in.json().at("rope_scaling").empty();
  const char* name = !older && in.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const bool has = in.Has(name);
  if (has && !in.json().at(name).is_object()) {
    in.Add(name, "is not an object", "null for plain RoPE");
    return;
  }
  const Json none = Json::object();
  Reader rope(has ? in.json().at(name) : none, in.file(), problems);
  const double theta = in.NumberOr("rope_theta", 10000);
  model.mutable_attention()->set_rope_theta(rope.NumberOr("rope_theta", theta));
  if (!has) return;
  const std::string type = rope.StringOr("rope_type", rope.StringOr("type", "default"));
  if (type == "default") return;
  if (type != "yarn") {
    in.Add(name, absl::StrCat("rope type \"", type, "\" is unknown"), "yarn, or null for plain RoPE");
    return;
  }
  ReadYarn(rope, *model.mutable_yarn());
}

// deepseek_v2 has no groups of its own accord: where its method needs them they must be said.
void ReadGroups(Reader& in, bool v3, bool grouped, MoeConfig& moe) {
  if (v3) {
    moe.set_groups(in.IntUnlessAbsent("n_group", 8));
    moe.set_groups_kept(in.IntUnlessAbsent("topk_group", 4));
  } else {
    moe.set_groups(grouped ? in.Int("n_group") : 1);
    moe.set_groups_kept(grouped ? in.Int("topk_group") : 1);
  }
}

void ReadGate(Reader& in, bool v3, MoeConfig& moe) {
  const std::string scoring = in.StringOr("scoring_func", v3 ? "sigmoid" : "softmax");
  const std::string method = in.StringOr("topk_method", v3 ? "noaux_tc" : "greedy");
  if (scoring != (v3 ? "sigmoid" : "softmax")) {
    in.Add("scoring_func", absl::StrCat("is ", scoring), v3 ? "deepseek_v3 has sigmoid" : "deepseek_v2 has softmax");
  }
  const bool known = v3 ? method == "noaux_tc" : method == "greedy" || method == "group_limited_greedy";
  if (!known) {
    in.Add("topk_method", absl::StrCat("is ", method), v3 ? "noaux_tc" : "greedy or group_limited_greedy");
  }
  ReadGroups(in, v3, method == "group_limited_greedy", moe);
  moe.set_group_score(v3 ? MoeConfig::TOP2_SUM : MoeConfig::MAX);
  moe.set_gate(v3 ? MoeConfig::SIGMOID : MoeConfig::SOFTMAX);
  moe.set_renormalize(in.BoolOr("norm_topk_prob", v3));
  moe.set_routed_scaling(in.NumberOr("routed_scaling_factor", v3 ? 2.5 : 1.0));
  if (!v3 && moe.renormalize() && moe.routed_scaling() != 1) {
    in.Add("routed_scaling_factor", "is not applied by deepseek_v2 when norm_topk_prob is true", "say 1");
  }
}

void ReadExperts(Reader& in, bool v3, const Defaults& defaults, ModelConfig& model) {
  MoeConfig& moe = *model.mutable_moe();
  moe.set_routed_experts(in.Int("n_routed_experts"));
  moe.set_shared_experts(in.CountUnlessAbsent("n_shared_experts", defaults.n_shared_experts));
  moe.set_active_experts(in.Int("num_experts_per_tok"));
  moe.set_expert_ffn(in.Int("moe_intermediate_size"));
  ReadGate(in, v3, moe);
}

// "deepseek_v3" or "deepseek_v2"; anything else is a problem.
bool IsV3(Reader& in) {
  const std::string type = in.StringOr("model_type", "");
  if (type != "deepseek_v3" && type != "deepseek_v2") {
    in.Add("model_type", absl::StrCat("\"", type, "\" is unknown"), "deepseek_v3 or deepseek_v2");
  }
  const bool v3 = type == "deepseek_v3";
  in.Only("architectures", Json::array({v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"}));
  return v3;
}

void RefuseOthers(Reader& in) {
  in.Only("hidden_act", "silu");
  in.Only("attention_bias", false);
  in.Only("mlp_bias", false);
  in.Only("tie_word_embeddings", false);
  in.Only("moe_layer_freq", 1);
  in.Only("attention_dropout", 0.0);
  in.Only("rope_interleave", true);
  if (in.Has("num_key_value_heads") && in.Has("num_attention_heads")) {
    in.Only("num_key_value_heads", in.json().at("num_attention_heads"));
  }
}

OrderedJson RopeScaling(const YarnConfig& yarn) {
  OrderedJson rope = {{"type", "yarn"},
                      {"rope_type", "yarn"},
                      {"factor", yarn.factor()},
                      {"original_max_position_embeddings", yarn.original_length()},
                      {"beta_fast", yarn.beta_fast()},
                      {"beta_slow", yarn.beta_slow()},
                      {"mscale", yarn.mscale()},
                      {"mscale_all_dim", yarn.mscale_all_dim()}};
  const double amplitude = RopeAmplitude(yarn);
  if (!NearlyEqual(TransformersAmplitude(yarn), amplitude)) rope["attention_factor"] = amplitude;
  return rope;
}

// Why neither architecture can say the model; empty when one can.
std::string WhyNotExportable(const ModelConfig& model, const HfExportOptions& options) {
  if (!model.has_moe()) return "model.moe: a model without experts has no deepseek config.json";
  const MoeConfig& moe = model.moe();
  const bool ranked = moe.groups_kept() < moe.groups();
  if (moe.gate() == MoeConfig::SIGMOID) {
    if (moe.routed_experts() < 2 * moe.groups()) {
      return "model.moe.groups: deepseek_v3 ranks a group by its two best experts, and here a group has one; say fewer "
             "groups, or more experts";
    }
    return ranked && moe.group_score() == MoeConfig::MAX ? "model.moe.group_score: deepseek_v3 has TOP2_SUM only" : "";
  }
  if (ranked && moe.group_score() == MoeConfig::TOP2_SUM) return "model.moe.group_score: deepseek_v2 has MAX only";
  if (moe.renormalize()) {
    return "model.moe.renormalize: transformers' deepseek_v2 never divides the chosen affinities by their sum; train "
           "with renormalize: false, or with a sigmoid gate";
  }
  if (options.mtp && model.mtp_depth() > 0) return "model.mtp_depth: deepseek_v2 has no MTP; export without it";
  return "";
}

void WriteExperts(const ModelConfig& model, bool v3, OrderedJson& out) {
  const MoeConfig& moe = model.moe();
  out["moe_intermediate_size"] = moe.expert_ffn();
  out["n_routed_experts"] = moe.routed_experts();
  out["n_shared_experts"] = moe.shared_experts();
  out["num_experts_per_tok"] = moe.active_experts();
  out["n_group"] = moe.groups();
  out["topk_group"] = moe.groups_kept();
  out["routed_scaling_factor"] = moe.routed_scaling();
  out["norm_topk_prob"] = moe.renormalize();
  out["scoring_func"] = v3 ? "sigmoid" : "softmax";
  out["topk_method"] = v3 ? "noaux_tc" : moe.groups() > 1 ? "group_limited_greedy" : "greedy";
  out["first_k_dense_replace"] = model.dense_layers();
  out["moe_layer_freq"] = 1;
}

}  // namespace

absl::StatusOr<ModelConfig> ImportHfConfig(absl::string_view text, const std::string& name) {
  const absl::StatusOr<Json> json = ParseStrictJson(text);
  if (!json.ok() || !json->is_object()) {
    return absl::DataLossError(absl::StrCat(name, ": ", json.ok() ? "is not a JSON object" : json.status().message(),
                                            "; name a model's config.json, or download it again"));
  }
  std::vector<Problem> problems;
  Reader in(*json, name, problems);
  const bool v3 = IsV3(in);
  if (!problems.empty()) return ProblemsToStatus(problems);  // nothing else can be judged
  RefuseOthers(in);
  ModelConfig model;
  model.set_vocab_size(in.Int("vocab_size"));
  model.set_layers(in.Int("num_hidden_layers"));
  model.set_hidden(in.Int("hidden_size"));
  model.set_heads(in.Int("num_attention_heads"));
  const Defaults& defaults = v3 ? kV3Defaults : kV2Defaults;
  ReadAttention(in, defaults, model);
  ReadRope(in, problems, model);
  model.set_dense_layers(in.IntUnlessAbsent("first_k_dense_replace", defaults.first_k_dense_replace));
  if (model.dense_layers() > 0) model.set_dense_ffn(in.Int("intermediate_size"));
  ReadExperts(in, v3, defaults, model);
  model.set_mtp_depth(in.IntOr("num_nextn_predict_layers", 0));
  model.set_norm_eps(in.NumberOr("rms_norm_eps", 1e-6));
  model.set_init_std(in.NumberOr("initializer_range", 0.02));
  model.set_bos_id(in.IntOr("bos_token_id", defaults.bos_token_id));
  model.set_eos_id(in.IntOr("eos_token_id", defaults.eos_token_id));
  if (!problems.empty()) return ProblemsToStatus(problems);
  return model;
}

absl::StatusOr<ModelConfig> LoadHfConfig(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path, kMaxHfJsonBytes));
  return ImportHfConfig(text, path);
}

absl::StatusOr<std::string> ExportHfConfig(const ModelConfig& model, const HfExportOptions& options) {
  const std::string why_not = WhyNotExportable(model, options);
  if (!why_not.empty()) return absl::FailedPreconditionError(why_not);
  const bool v3 = model.moe().gate() == MoeConfig::SIGMOID;
  const AttentionConfig& attention = model.attention();
  OrderedJson out;
  out["architectures"] = {v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"};
  out["model_type"] = v3 ? "deepseek_v3" : "deepseek_v2";
  out["vocab_size"] = model.vocab_size();
  out["hidden_size"] = model.hidden();
  out["intermediate_size"] = model.has_dense_ffn() ? model.dense_ffn() : model.moe().expert_ffn();
  out["num_hidden_layers"] = model.layers();
  if (v3) out["num_nextn_predict_layers"] = options.mtp ? model.mtp_depth() : 0;
  out["num_attention_heads"] = model.heads();
  out["num_key_value_heads"] = model.heads();
  out["q_lora_rank"] = attention.q_lora_rank() > 0 ? OrderedJson(attention.q_lora_rank()) : OrderedJson(nullptr);
  out["kv_lora_rank"] = attention.kv_lora_rank();
  out["qk_nope_head_dim"] = attention.qk_nope_head_dim();
  out["qk_rope_head_dim"] = attention.qk_rope_head_dim();
  out["v_head_dim"] = attention.v_head_dim();
  WriteExperts(model, v3, out);
  const int64_t reach = model.has_yarn() ? YarnReach(model.yarn()) : kDefaultPositions;
  out["max_position_embeddings"] = options.max_position_embeddings > 0 ? options.max_position_embeddings : reach;
  out["rope_theta"] = attention.rope_theta();
  out["rope_scaling"] = model.has_yarn() ? RopeScaling(model.yarn()) : OrderedJson(nullptr);
  if (v3) out["rope_interleave"] = true;
  out["hidden_act"] = "silu";
  out["rms_norm_eps"] = model.norm_eps();
  out["initializer_range"] = model.init_std();
  out["attention_bias"] = false;
  out["attention_dropout"] = 0.0;
  out["tie_word_embeddings"] = false;
  out["use_cache"] = true;
  out["bos_token_id"] = model.bos_id();
  out["eos_token_id"] = model.eos_id();
  out["torch_dtype"] = options.torch_dtype;
  return out.dump(2) + "\n";
}

}  // namespace shoestring::config
