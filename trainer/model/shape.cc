// Copies the config's numbers into the plain struct that layers read.
#include "trainer/model/shape.h"

namespace shoestring {
namespace {

RopeSettings MakeRopeSettings(const config::AttentionConfig& attention, const config::YarnConfig* yarn) {
  RopeSettings rope;
  rope.theta = attention.rope_theta();
  if (yarn == nullptr) return rope;
  rope.factor = yarn->factor();
  rope.original_length = yarn->original_length();
  rope.beta_fast = yarn->beta_fast();
  rope.beta_slow = yarn->beta_slow();
  rope.mscale = yarn->mscale();
  rope.mscale_all_dim = yarn->mscale_all_dim();
  return rope;
}

void SetExperts(const config::MoeConfig& moe, ModelShape& shape) {
  shape.experts = moe.routed_experts();
  shape.shared_ffn = int64_t{moe.shared_experts()} * moe.expert_ffn();
  shape.chosen = moe.active_experts();
  shape.expert_ffn = moe.expert_ffn();
  shape.groups = moe.groups();
  shape.groups_kept = moe.groups_kept();
  shape.gate = moe.gate() == config::MoeConfig::SOFTMAX ? GateKind::kSoftmax : GateKind::kSigmoid;
  shape.group_score = moe.group_score() == config::MoeConfig::MAX ? GroupScore::kMax : GroupScore::kTop2Sum;
  shape.renormalize = moe.renormalize();
  shape.routed_scaling = moe.routed_scaling();
}

}  // namespace

ModelShape MakeModelShape(const config::ModelConfig& model, const config::YarnConfig* yarn,
                          const config::PrecisionConfig& precision, int64_t sequences, int64_t sequence_length) {
  ModelShape shape;
  shape.sequences = sequences;
  shape.sequence_length = sequence_length;
  shape.vocab = model.vocab_size();
  shape.layers = model.layers();
  shape.hidden = model.hidden();
  shape.heads = model.heads();
  shape.nope = model.attention().qk_nope_head_dim();
  shape.rope = model.attention().qk_rope_head_dim();
  shape.value = model.attention().v_head_dim();
  shape.q_rank = model.attention().q_lora_rank();
  shape.kv_rank = model.attention().kv_lora_rank();
  shape.dense_layers = model.dense_layers();
  shape.dense_ffn = model.dense_ffn();
  if (model.has_moe()) SetExperts(model.moe(), shape);
  shape.mtp_depth = model.mtp_depth();
  shape.norm_eps = model.norm_eps();
  shape.rope_settings = MakeRopeSettings(model.attention(), yarn);
  shape.act = precision.mode() == config::PrecisionConfig::FP32 ? DType::kF32 : DType::kBF16;
  shape.formats = MakePrecisionFormats(precision, shape.act);
  return shape;
}

RecomputeOptions MakeRecomputeOptions(const config::RecomputeConfig& config) {
  return {config.norms(), config.mla_up(), config.swiglu()};
}

}  // namespace shoestring
