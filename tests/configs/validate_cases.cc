// The cases, by section of the config.
#include "tests/configs/validate_cases.h"

namespace shoestring::config {
namespace {

const std::string kTiny = "tiny_cpu";
const std::string kThin = "thin_16layer";
const std::string kLarge = "deepseek_v3_671b";

std::vector<InvalidCase> ModelCases() {
  return {
      {"odd_rope", kTiny, {"model.attention.qk_rope_head_dim=15"}, "model.attention.qk_rope_head_dim", "is odd"},
      {"more_dense_than_layers", kTiny, {"model.dense_layers=5"}, "model.dense_layers", "5 of 4 layers"},
      {"no_dense_width", kTiny, {"model.dense_ffn="}, "model.dense_ffn", "is not set"},
      {"no_experts", kTiny, {"model.moe="}, "model.moe", "need experts"},
      {"unused_experts", kTiny, {"model.dense_layers=4"}, "model.moe", "no layer has experts"},
      {"groups", kTiny, {"model.moe.groups=5"}, "model.moe.groups", "5 groups do not divide 32 routed experts"},
      {"groups_kept", kTiny, {"model.moe.groups_kept=9"}, "model.moe.groups_kept", "keeps 9 of 8 groups"},
      {"active", kTiny, {"model.moe.active_experts=17"}, "model.moe.active_experts", "17 experts but reaches 16"},
      {"top2_of_one", kTiny, {"model.moe.groups=32"}, "model.moe.group_score", "TOP2_SUM needs two experts"},
      {"bos", kTiny, {"model.bos_id=1152"}, "model.bos_id", "token 1152 is not one of 1152"},
      {"eos", kTiny, {"model.eos_id=5000"}, "model.eos_id", "token 5000 is not one of 1152"},
      {"too_large",
       kTiny,
       {"model.hidden=1048576", "model.moe.routed_experts=65536", "model.moe.expert_ffn=4194304", "model.layers=4096"},
       "model",
       "parameters; at most 1e+15"},
      {"model_yarn",
       kTiny,
       {"model.yarn={factor: 2 original_length: 128 beta_fast: 1 beta_slow: 1 mscale: 1 "
        "mscale_all_dim: 1}"},
       "model.yarn.beta_fast",
       "1 is not above beta_slow 1"},
      {"infinite", kTiny, {"model.moe.routed_scaling=inf"}, "model.moe.routed_scaling", "is inf"},
      {"not_a_number", kTiny, {"model.init_std=nan"}, "model.init_std", "is nan"},
  };
}

std::vector<InvalidCase> PrecisionCases() {
  const std::string fp8 = "precision.fp8.";
  return {
      {"fp8_without_recipe", kTiny, {"precision.mode=FP8"}, "precision.fp8", "needs its recipe"},
      {"recipe_without_fp8", kLarge, {"precision.mode=BF16"}, "precision.fp8", "the mode is not FP8"},
      {"fp32_moments", kTiny, {"precision.mode=FP32"}, "precision.moments", "say moments: MOMENTS_FP32"},
      {"activation_operand", kLarge, {fp8 + "activation_format=E5M6"}, fp8 + "activation_format", "not an operand"},
      {"weight_operand", kLarge, {fp8 + "weight_format=BF16"}, fp8 + "weight_format", "not an operand"},
      {"gradient_operand", kLarge, {fp8 + "gradient_format=BF16"}, fp8 + "gradient_format", "not an operand"},
      {"dispatch", kLarge, {fp8 + "dispatch_format=E5M6"}, fp8 + "dispatch_format", "E5M6 is never sent"},
      {"dispatch_gradient",
       kLarge,
       {fp8 + "dispatch_gradient_format=E5M6"},
       fp8 + "dispatch_gradient_format",
       "never sent"},
      {"combine", kLarge, {fp8 + "combine_format=E5M6"}, fp8 + "combine_format", "never sent"},
      {"interval", kLarge, {fp8 + "promotion_interval=48"}, fp8 + "promotion_interval", "not a multiple of 32"},
      {"activation_tile", kLarge, {fp8 + "activation_tile.columns=64"}, fp8 + "activation_tile.columns", "does not"},
      {"gradient_tile", kLarge, {fp8 + "gradient_tile.columns=64"}, fp8 + "gradient_tile.columns", "does not divide"},
      {"regrouped", kLarge, {fp8 + "weight_gradient_tile.rows=64"}, fp8 + "weight_gradient_tile.rows", "tile's 64"},
      {"weight_columns", kLarge, {fp8 + "weight_tile.columns=64"}, fp8 + "weight_tile.columns", "does not divide"},
      {"weight_rows", kLarge, {fp8 + "weight_tile.rows=1"}, fp8 + "weight_tile.rows", "does not divide"},
      {"e5m6_attention",
       kLarge,
       {fp8 + "power_of_two_attention_output=false"},
       fp8 + "cached_attention_output",
       "set power_of_two_attention_output to true"},
      {"e5m6_linear", kLarge, {fp8 + "cached_linear_input=E5M6"}, fp8 + "cached_linear_input", "power-of-two"},
      {"e5m6_swiglu", kLarge, {fp8 + "cached_swiglu_input=E5M6"}, fp8 + "cached_swiglu_input", "power-of-two"},
  };
}

std::vector<InvalidCase> TrainCases() {
  return {
      {"no_bias_speed", kTiny, {"train.bias_speed="}, "train.bias_speed", "moe needs it"},
      {"no_alpha", kTiny, {"train.balance_alpha="}, "train.balance_alpha", "moe needs it"},
      {"no_mtp_weight", kTiny, {"train.mtp_weight="}, "train.mtp_weight", "mtp_depth needs it"},
      {"needless_mtp_weight", kTiny, {"model.mtp_depth=0"}, "train.mtp_weight", "the model has no mtp_depth"},
      {"needless_bias_speed", kTiny, {"model.moe=", "model.dense_layers=5"}, "train.bias_speed", "has no moe"},
      {"needless_alpha", kTiny, {"model.moe=", "model.dense_layers=5"}, "train.balance_alpha", "has no moe"},
      {"open_piece", kLarge, {"train.bias_speed[0].until_tokens="}, "train.bias_speed[0]", "not the last piece"},
      {"closed_piece",
       kLarge,
       {"train.bias_speed[1].until_tokens=15000000000000"},
       "train.bias_speed[1].until_tokens",
       "the last piece ends"},
      {"pieces_order",
       kLarge,
       {"train.mtp_weight[1].until_tokens=5", "train.mtp_weight+={value: 1}"},
       "train.mtp_weight[1].until_tokens",
       "5 is not above the previous piece's 10000000000000"},
      {"ema", kTiny, {"train.ema={}"}, "train.ema", "say decay or half_life_tokens"},
      {"no_validation_data", kTiny, {"data.validation_prefix="}, "data.validation_prefix", "train.validation needs"},
      {"source_twice",
       kTiny,
       {"data.source+={prefix: \"data/train\" weight: 1}"},
       "data.source[1].prefix",
       "listed twice"},
      {"trains_on_validation",
       kTiny,
       {"data.source[0].prefix=data/validation"},
       "data.source[0].prefix",
       "is the validation shard too"},
      {"best_fit_lengths",
       kLarge,
       {"data.packing=BEST_FIT"},
       "data.packing",
       "but train.phase[0] has 4096 and train.phase[2] has 32768; say CONCATENATE"},
      {"empty_path", kTiny, {"data.tokenizer=\"\""}, "data.tokenizer", "is empty"},
      {"empty_directory", kTiny, {"checkpoint.directory=\"\""}, "checkpoint.directory", "is empty"},
      {"no_phases", kTiny, {"train.phase="}, "train.phase", "is not set"},
  };
}

std::vector<InvalidCase> PhaseCases() {
  const std::string phase = "train.phase[0]";
  const std::string two_phases =
      "train.phase+={sequence_length: 512 steps: 5 micro_batch: 1 batch {sequences: 1} "
      "learning_rate {constant: 1}}";
  const std::string yarn = "{factor: 2 original_length: 100 beta_fast: 32 beta_slow: 1 mscale: 1 mscale_all_dim: 1}";
  return {
      {"no_duration", kTiny, {phase + ".steps="}, phase, "say tokens or steps"},
      {"no_batch_shape", kTiny, {phase + ".batch={}"}, phase + ".batch", "say sequences or ramp"},
      {"batch_unit", kTiny, {phase + ".batch.sequences=20"}, phase + ".batch.sequences", "nearest: 16"},
      {"batch_below_unit", kTiny, {"train.lanes=4"}, phase + ".batch.sequences", "4 * 16; nearest: 64"},
      {"ramp_from",
       kLarge,
       {phase + ".batch.ramp.from_sequences=3073"},
       phase + ".batch.ramp.from_sequences",
       "nearest: 3072"},
      {"ramp_to", kLarge, {phase + ".batch.ramp.to_sequences=15361"}, phase + ".batch.ramp.to_sequences", "multiple"},
      {"ramp_long",
       kLarge,
       {phase + ".batch.ramp.over_tokens=39083333334"},
       phase + ".batch.ramp.over_tokens",
       "end the ramp inside the phase"},
      {"micro_batches",
       kTiny,
       {phase + ".batch.sequences=1073741824", phase + ".micro_batch=16"},
       phase + ".batch.sequences",
       "a step has 67108864 micro-batches"},
      {"micro_batch_tokens",
       kTiny,
       {phase + ".sequence_length=16777216", phase + ".micro_batch=1024"},
       phase + ".micro_batch",
       "a micro-batch has 17179869184 tokens"},
      {"expert_lanes", kTiny, {"train.expert_lanes=2"}, "train.expert_lanes", "2 does not divide 1 lanes"},
      {"phase_expert_lanes", kLarge, {"train.phase[3].expert_lanes=3"}, "train.phase[3].expert_lanes", "does not"},
      {"mtp_longer",
       kTiny,
       {phase + ".sequence_length=2", "model.mtp_depth=2"},
       phase + ".sequence_length",
       "2 is not longer than mtp_depth 2"},
      {"longer_without_yarn", kTiny, {two_phases}, "train.phase[1].sequence_length", "longer than the 256"},
      {"beyond_yarn", kTiny, {phase + ".yarn=" + yarn}, phase + ".sequence_length", "original_length = 200"},
      {"phase_yarn",
       kTiny,
       {phase + ".yarn=" + yarn, phase + ".yarn.beta_slow=40"},
       phase + ".yarn.beta_fast",
       "32 is not above beta_slow 40"},
  };
}

std::vector<InvalidCase> LearningRateCases() {
  const std::string rate = "train.phase[0].learning_rate";
  return {
      {"no_shape", kTiny, {rate + "[1]={until_step: 600}"}, rate + "[1]", "say constant, linear, cosine or factor"},
      {"factor_first", kTiny, {rate + "={factor: 2}"}, rate + "[0].factor", "has no previous segment"},
      {"endless_slope", kTiny, {rate + "[1].until_step="}, rate + "[1]", "a slope without an end"},
      {"endless_inside", kTiny, {rate + "[0].until_step="}, rate + "[0]", "is not the last segment"},
      {"segments_order",
       kTiny,
       {rate + "[0].until_step=600", rate + "[1].until_step=600"},
       rate + "[1]",
       "ends before it begins"},
      {"units_order", kTiny, {rate + "[1]={constant: 1 until_tokens: 4096}"}, rate + "[1]", "ends before it begins"},
      {"after_phase", kTiny, {rate + "[1].until_step=601"}, rate + "[1]", "ends after the phase"},
      {"before_phase", kTiny, {rate + "[1].until_step=599"}, rate + "[1]", "may end before the phase"},
      {"other_unit", kTiny, {rate + "[1].until_tokens=2457600"}, rate + "[1]", "in its unit"},
  };
}

std::vector<InvalidCase> LayoutCases() {
  const std::vector<std::string> dualpipe = {"layout.dualpipe={}", "train.phase[0].batch.sequences=128"};
  return {
      {"lanes", kThin, {"layout.data_ranks=3"}, "layout.data_ranks", "3 data ranks * 1 directions do not divide 16"},
      {"lanes_dualpipe",
       kThin,
       {dualpipe[0], dualpipe[1], "layout.data_ranks=16"},
       "layout.data_ranks",
       "16 data ranks * 2 directions do not divide 16 lanes"},
      {"expert_lane_group",
       kThin,
       {"layout.data_ranks=16", "train.expert_lanes=4", "layout.expert_ranks=2"},
       "layout.expert_ranks",
       "= 2 lanes, not a multiple of expert_lanes 4"},
      {"expert_ranks",
       kThin,
       {"layout.data_ranks=4", "layout.expert_ranks=8"},
       "layout.expert_ranks",
       "8 does not divide 4 data ranks"},
      {"experts_of_rank",
       kThin,
       {"layout.data_ranks=16", "layout.expert_ranks=16", "model.moe.routed_experts=24"},
       "layout.expert_ranks",
       "16 does not divide 24 routed experts"},
      {"experts_of_dense",
       kThin,
       {"layout.data_ranks=2", "layout.expert_ranks=2", "model.moe=", "model.dense_layers=16"},
       "layout.expert_ranks",
       "the model has no experts"},
      {"nodes", kThin, {"layout.ranks_per_node=3"}, "layout.ranks_per_node", "4 ranks do not fill machines of 3"},
      {"two_hop_nodes",
       kThin,
       {"layout.data_ranks=2", "layout.expert_ranks=2", "layout.exchange.path=TWO_HOP"},
       "layout.exchange.path",
       "2 expert ranks are not a multiple of 4"},
      {"two_hop_groups", kLarge, {"model.moe.groups=4"}, "layout.exchange.path", "4 groups lie across 64"},
  };
}

std::vector<InvalidCase> StageCases() {
  const std::vector<std::string> dualpipe = {"layout.dualpipe={}", "train.phase[0].batch.sequences=128"};
  return {
      {"stages", kThin, {"layout.stages=8"}, "layout.stages", "8, but the schedule makes 4 of 4 pipeline ranks"},
      {"stages_interleaved", kThin, {"layout.interleaved.chunks=2"}, "layout.stages", "makes 8"},
      {"stages_zb_v", kThin, {"layout.zb_v={}"}, "layout.stages", "makes 8"},
      {"stages_dualpipe_v", kThin, {"layout.dualpipe_v={}"}, "layout.stages", "makes 8"},
      {"empty_stages",
       kThin,
       {"layout.stages=32", "layout.pipeline_ranks=32"},
       "layout.stages",
       "32 stages have only 16 layers"},
      {"split_count", kThin, {"layout.layers_per_stage=[8, 8]"}, "layout.layers_per_stage", "2 numbers for 4 stages"},
      {"split_sum", kThin, {"layout.layers_per_stage=[4, 4, 4, 5]"}, "layout.layers_per_stage", "adds up to 17"},
      {"dualpipe_odd",
       kThin,
       {dualpipe[0], dualpipe[1], "layout.pipeline_ranks=3", "layout.stages=3"},
       "layout.dualpipe",
       "has 3 pipeline ranks"},
      {"interleaved_ragged",
       kThin,
       {"layout.interleaved.chunks=2", "layout.stages=8", "train.lanes=2", "train.phase[0].batch.sequences=6"},
       "layout.interleaved",
       "a multiple of pipeline_ranks = 4"},
      {"interleaved_ramp",
       kTiny,
       {"layout.pipeline_ranks=2", "layout.stages=4", "layout.interleaved={chunks: 2}",
        "train.phase[0].batch={ramp {from_sequences: 32 to_sequences: 64 over_tokens: 100000}}"},
       "layout.interleaved",
       "by lanes / data_ranks = 1 / 1; a multiple of pipeline_ranks = 2"},
      {"phase_layout",
       kLarge,
       {"train.phase[3].layout.data_ranks=31"},
       "train.phase[3].layout.data_ranks",
       "31 data ranks"},
  };
}

}  // namespace

std::vector<InvalidCase> InvalidCases() {
  std::vector<InvalidCase> all;
  for (const auto& section :
       {ModelCases(), PrecisionCases(), TrainCases(), PhaseCases(), LearningRateCases(), LayoutCases(), StageCases()}) {
    all.insert(all.end(), section.begin(), section.end());
  }
  return all;
}

}  // namespace shoestring::config
