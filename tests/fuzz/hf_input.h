// A Hugging Face directory in one input, and the small model that it is read as.
#pragma once

#include <map>
#include <string>

#include "base/check.h"
#include "base/file_system.h"
#include "configs/load.h"
#include "configs/schema/model.pb.h"
#include "tests/fuzz/target.h"

namespace shoestring {

inline constexpr char kHfDirectory[] = "hf";

// A dense layer, and an MTP module with experts, as narrow as they come; but some FP8 matrices have two blocks.
inline constexpr char kFuzzedHfModel[] = R"(model {
  vocab_size: 3 layers: 1 hidden: 2 heads: 1 dense_layers: 1 dense_ffn: 129 mtp_depth: 1 norm_eps: 1e-6 init_std: 0.02
  attention { q_lora_rank: 1 kv_lora_rank: 1 qk_nope_head_dim: 1 qk_rope_head_dim: 2 v_head_dim: 1 rope_theta: 10000 }
  moe {
    routed_experts: 2 shared_experts: 1 active_experts: 1 expert_ffn: 1 groups: 1 groups_kept: 1
    gate: SIGMOID group_score: TOP2_SUM renormalize: true routed_scaling: 1
  }
})";
inline config::ModelConfig FuzzedHfModel() {
  const auto loaded = config::ParseConfig(kFuzzedHfModel, "model");
  CHECK(loaded.ok());
  return loaded->config.model();
}

// The files of the directory: config.json, the index, and two weight files that it may name. Without an index there is
// one weight file, of the name that readers look for then.
inline std::map<std::string, std::string> SplitHfInput(absl::string_view input) {
  const TwoFiles config = SplitInput(input), index = SplitInput(config.second), weights = SplitInput(index.second);
  const auto path = [](const char* name) { return JoinPath(kHfDirectory, name); };
  std::map<std::string, std::string> files = {{path("config.json"), std::string(config.first)}};
  if (index.first.empty()) {
    files[path("model.safetensors")] = std::string(weights.first);
    return files;
  }
  files[path("model.safetensors.index.json")] = std::string(index.first);
  files[path("model-00001-of-00002.safetensors")] = std::string(weights.first);
  files[path("model-00002-of-00002.safetensors")] = std::string(weights.second);
  return files;
}

}  // namespace shoestring
