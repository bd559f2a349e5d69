// The small numbers, and what must divide them.
#include "trainer/verify/shrink.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "configs/resolve.h"

namespace shoestring {
namespace {

// Small, and no two of them equal where a mistake could confuse them.
constexpr int kHidden = 32, kHeads = 2, kNope = 8, kRope = 4, kValue = 6, kQueryLatent = 16, kLatent = 12;
constexpr int kDenseFfn = 40, kExpertFfn = 16, kVocab = 64, kSequence = 16;

int Smaller(int value, int limit) { return std::min(value, limit); }

void ShrinkWidths(config::ModelConfig& model) {
  const int hidden = Smaller(model.hidden(), kHidden);
  model.set_init_std(std::min(1.0, model.init_std() * std::sqrt(static_cast<double>(model.hidden()) / hidden)));
  model.set_hidden(hidden);
  model.set_heads(Smaller(model.heads(), kHeads));
  config::AttentionConfig& attention = *model.mutable_attention();
  attention.set_qk_nope_head_dim(Smaller(attention.qk_nope_head_dim(), kNope));
  attention.set_qk_rope_head_dim(Smaller(attention.qk_rope_head_dim(), kRope));
  attention.set_v_head_dim(Smaller(attention.v_head_dim(), kValue));
  attention.set_q_lora_rank(Smaller(attention.q_lora_rank(), kQueryLatent));  // 0, no latent, stays
  attention.set_kv_lora_rank(Smaller(attention.kv_lora_rank(), kLatent));
  if (model.has_dense_ffn()) model.set_dense_ffn(Smaller(model.dense_ffn(), kDenseFfn));
  model.set_vocab_size(Smaller(model.vocab_size(), kVocab));
  model.set_bos_id(Smaller(model.bos_id(), model.vocab_size() - 2));
  model.set_eos_id(Smaller(model.eos_id(), model.vocab_size() - 1));
}

// The rules are those of configs/validate_model.cc and validate_layout.cc.
void ShrinkExperts(config::MoeConfig& moe, int expert_ranks) {
  moe.set_expert_ffn(Smaller(moe.expert_ffn(), kExpertFfn));
  const bool ranked = moe.groups_kept() < moe.groups() && moe.group_score() == config::MoeConfig::TOP2_SUM;
  const int unit = std::lcm(expert_ranks, moe.groups());
  const auto fits = [&](int experts) {
    const int in_group = experts / moe.groups();
    return (!ranked || in_group >= 2) && in_group * moe.groups_kept() >= moe.active_experts();
  };
  int experts = unit;
  while (!fits(experts)) experts += unit;  // ends at the present number, which is such a multiple
  moe.set_routed_experts(experts);
}

void ShrinkLayers(config::ModelConfig& model, config::LayoutConfig& layout) {
  const std::vector<int> before = config::LayersPerStage(layout, model.layers());
  layout.clear_layers_per_stage();
  int first = 0, layers = 0, dense_layers = 0;
  for (const int count : before) {
    const int dense = std::clamp(model.dense_layers() - first, 0, count);
    const int kept = (dense > 0 ? 1 : 0) + (dense < count ? 1 : 0);
    layout.add_layers_per_stage(kept);
    layers += kept;
    dense_layers += dense > 0 ? 1 : 0;
    first += count;
  }
  model.set_layers(layers);
  model.set_dense_layers(dense_layers);
}

}  // namespace

config::RunConfig Shrink(const config::RunConfig& config) {
  config::RunConfig small = config;
  ShrinkWidths(*small.mutable_model());
  if (small.model().has_moe()) ShrinkExperts(*small.mutable_model()->mutable_moe(), small.layout().expert_ranks());
  ShrinkLayers(*small.mutable_model(), *small.mutable_layout());
  config::Phase& phase = *small.mutable_train()->mutable_phase(0);
  if (phase.batch().has_ramp())
    phase.mutable_batch()->set_sequences(config::BatchSequences(config::ResolvePhase(config, 0), 0));
  phase.set_sequence_length(
      std::min(phase.sequence_length(), std::max(kSequence, 2 * (config.model().mtp_depth() + 1))));
  small.mutable_layout()->set_device(config::LayoutConfig::CPU);
  return small;
}

}  // namespace shoestring
