// The parameter table's body: names, shapes and roles of every parameter, in a fixed order.
#include "trainer/params.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace shoestring {
namespace {

using config::ModelConfig;

// Appends the parameters of one layer (or of an MTP module, whose layer number follows the main model's).
class TableBuilder {
 public:
  explicit TableBuilder(const ModelConfig& model) : model_(model) {}

  void SetLayer(int layer, bool is_mtp) {
    layer_ = layer;
    is_mtp_ = is_mtp;
    prefix_ = absl::StrCat("model.layers.", layer, ".");
  }
  void SetEnds() {
    layer_ = -1;
    is_mtp_ = false;
    prefix_.clear();
  }

  Parameter& Matrix(const std::string& name, int64_t rows, int64_t cols) {
    Parameter p;
    p.name = prefix_ + name;
    p.rows = rows;
    p.cols = cols;
    p.decay = true;
    p.layer = layer_;
    p.is_mtp = is_mtp_;
    table_.push_back(std::move(p));
    return table_.back();
  }
  Parameter& Linear(const std::string& name, int64_t rows, int64_t cols) {
    Parameter& p = Matrix(name, rows, cols);
    p.linear = true;
    return p;
  }
  Parameter& Gain(const std::string& name, int64_t cols) {
    Parameter& p = Matrix(name, 1, cols);
    p.initializer = Initializer::kOnes;
    p.decay = false;
    p.compute_copy = false;
    return p;
  }

  void Attention() {
    const config::AttentionConfig& a = model_.attention();
    const int64_t query_width = int64_t{model_.heads()} * (a.qk_nope_head_dim() + a.qk_rope_head_dim());
    const int64_t q_rows = a.q_lora_rank() > 0 ? a.q_lora_rank() : query_width;
    const int64_t kv_rows = int64_t{a.kv_lora_rank()} + a.qk_rope_head_dim();
    const char* q_name = a.q_lora_rank() > 0 ? "self_attn.q_a_proj.weight" : "self_attn.q_proj.weight";
    Gain("input_layernorm.weight", model_.hidden());
    Linear("self_attn.qkv_a_proj.weight", q_rows + kv_rows, model_.hidden()).parts = {
        {prefix_ + q_name, 0, q_rows}, {prefix_ + "self_attn.kv_a_proj_with_mqa.weight", q_rows, kv_rows}};
    if (a.q_lora_rank() > 0) {
      Gain("self_attn.q_a_layernorm.weight", a.q_lora_rank());
      Linear("self_attn.q_b_proj.weight", query_width, a.q_lora_rank());
    }
    Gain("self_attn.kv_a_layernorm.weight", a.kv_lora_rank());
    Linear("self_attn.kv_b_proj.weight", int64_t{model_.heads()} * (a.qk_nope_head_dim() + a.v_head_dim()),
           a.kv_lora_rank());
    Linear("self_attn.o_proj.weight", model_.hidden(), int64_t{model_.heads()} * a.v_head_dim());
    Gain("post_attention_layernorm.weight", model_.hidden());
  }

  // A SwiGLU with its gate and up matrices fused.
  void Mlp(const std::string& name, int64_t width) {
    Linear(name + ".gate_up_proj.weight", 2 * width, model_.hidden()).parts = {
        {prefix_ + name + ".gate_proj.weight", 0, width}, {prefix_ + name + ".up_proj.weight", width, width}};
    Linear(name + ".down_proj.weight", model_.hidden(), width);
  }

  void Moe() {
    const config::MoeConfig& moe = model_.moe();
    Matrix("mlp.gate.weight", moe.routed_experts(), model_.hidden());
    Parameter& bias = Gain("mlp.gate.e_score_correction_bias", moe.routed_experts());
    bias.initializer = Initializer::kZeros;
    bias.trained = false;
    const std::string expert = prefix_ + "mlp.experts.{e}.";
    Parameter& gate_up = Linear("mlp.experts.gate_up_proj", 2 * int64_t{moe.expert_ffn()}, model_.hidden());
    gate_up.parts = {{expert + "gate_proj.weight", 0, moe.expert_ffn()},
                     {expert + "up_proj.weight", moe.expert_ffn(), moe.expert_ffn()}};
    MakeExpertStack(gate_up);
    Parameter& down = Linear("mlp.experts.down_proj", model_.hidden(), moe.expert_ffn());
    down.parts = {{expert + "down_proj.weight", 0, model_.hidden()}};
    MakeExpertStack(down);
    if (moe.shared_experts() > 0) Mlp("mlp.shared_experts", int64_t{moe.shared_experts()} * moe.expert_ffn());
  }

  // Whatever kind of layer has this number; MTP modules are of the last layer's kind.
  void Layer(int layer) {
    Attention();
    if (layer < model_.dense_layers()) {
      Mlp("mlp", model_.dense_ffn());
    } else {
      Moe();
    }
  }

  std::vector<Parameter> Take() { return std::move(table_); }

 private:
  void MakeExpertStack(Parameter& p) {
    p.stack = model_.moe().routed_experts();
    p.domain = MeshDomain::kExpert;
    p.activated_per_token = false;
  }

  const ModelConfig& model_;
  int layer_ = -1;
  bool is_mtp_ = false;
  std::string prefix_;
  std::vector<Parameter> table_;
};

}  // namespace

std::vector<Parameter> BuildParameterTable(const ModelConfig& model) {
  TableBuilder builder(model);
  const int uses = 1 + model.mtp_depth();
  builder.Matrix("model.embed_tokens.weight", model.vocab_size(), model.hidden()).uses = uses;
  for (int layer = 0; layer < model.layers(); ++layer) {
    builder.SetLayer(layer, /*is_mtp=*/false);
    builder.Layer(layer);
  }
  for (int k = 0; k < model.mtp_depth(); ++k) {
    builder.SetLayer(model.layers() + k, /*is_mtp=*/true);
    builder.Gain("enorm.weight", model.hidden());
    builder.Gain("hnorm.weight", model.hidden());
    builder.Matrix("eh_proj.weight", model.hidden(), 2 * int64_t{model.hidden()});
    builder.Layer(model.layers() - 1);
    builder.Gain("shared_head.norm.weight", model.hidden());
  }
  builder.SetEnds();
  builder.Gain("model.norm.weight", model.hidden());
  builder.Matrix("lm_head.weight", model.vocab_size(), model.hidden()).uses = uses;
  return builder.Take();
}

ParameterCounts CountParameters(const ModelConfig& model) {
  ParameterCounts counts;
  for (const Parameter& p : BuildParameterTable(model)) {
    if (p.is_mtp) {
      counts.mtp_unique += p.elements();
      continue;
    }
    counts.main_model += p.elements();
    // Of a stack of experts a token passes K.
    const int64_t activated =
        p.activated_per_token ? p.elements() : p.elements() / p.stack * model.moe().active_experts();
    counts.activated_with_embedding += activated;
    if (p.name != "model.embed_tokens.weight") counts.activated += activated;
  }
  return counts;
}

}  // namespace shoestring
