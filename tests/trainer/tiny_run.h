// A run small enough for tests: a model with every mechanism, and tokens made by a formula.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/rng.h"
#include "configs/schema/run.pb.h"
#include "data/token_source.h"
#include "google/protobuf/text_format.h"
#include "tests/trainer/fp8_recipe.h"
#include "trainer/train_loop.h"

namespace shoestring {

// Latent attention with a query latent, one dense and one MoE layer in groups, one MTP module; 12 steps of one phase.
// `changes` is merged into it; lists that it names (phases, learning rates) are replaced.
inline config::RunConfig TinyConfig(const std::string& mode = "FP32", const std::string& changes = "") {
  config::RunConfig config;
  const std::string text = absl::StrCat(R"(
    model {
      vocab_size: 61 layers: 2 hidden: 32 heads: 2
      attention { qk_nope_head_dim: 8 qk_rope_head_dim: 4 v_head_dim: 8 q_lora_rank: 16 kv_lora_rank: 12
                  rope_theta: 10000 }
      dense_layers: 1 dense_ffn: 48
      moe { routed_experts: 8 shared_experts: 1 active_experts: 2 expert_ffn: 16 groups: 4 groups_kept: 2
            group_score: TOP2_SUM gate: SIGMOID renormalize: true routed_scaling: 2.5 }
      mtp_depth: 1 norm_eps: 1e-6 init_std: 0.05 bos_id: 0 eos_id: 1
    }
    precision { mode: )",
                                        mode, R"( moments: MOMENTS_FP32 }
    train {
      seed: 7 adamw { beta1: 0.9 beta2: 0.95 eps: 1e-8 weight_decay: 0.1 } clip_norm: 1 ema { decay: 0.9 }
      bias_speed { value: 0.001 } mtp_weight { value: 0.3 } balance_alpha: 0.0001
      lanes: 1 expert_lanes: 1 reduction: CANONICAL
      phase { sequence_length: 12 steps: 12 micro_batch: 2 batch { sequences: 12 }
              learning_rate { until_step: 3 linear { from: 0 to: 0.003 } } learning_rate { constant: 0.003 } }
      validation { interval_steps: 5 sequences: 5 }
    }
    data { document_mask: false }
    checkpoint { interval_steps: 4 })");
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &config));
  if (mode == "FP8") *config.mutable_precision()->mutable_fp8() = Fp8Precision().fp8();
  config::RunConfig replacement;
  CHECK(google::protobuf::TextFormat::ParseFromString(changes, &replacement));
  if (replacement.train().phase_size() > 0) config.mutable_train()->clear_phase();
  config.MergeFrom(replacement);
  return config;
}

// Every sample is a run of numbers with a stride of its own, so there is something to learn; ids from 2 on.
class FormulaSource final : public TokenSource {
 public:
  FormulaSource(int64_t row_tokens, uint64_t seed, int64_t repeat_after = int64_t{1} << 40)
      : row_tokens_(row_tokens), rng_(seed, RngPurpose::kTest, 1), repeat_after_(repeat_after) {}
  int64_t row_tokens() const override { return row_tokens_; }
  absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) override {
    for (int64_t s = 0; s < samples; ++s) {
      const uint64_t sample = (first_sample + s) % repeat_after_;
      const uint64_t start = rng_.Below(2 * sample, 59), stride = 1 + rng_.Below(2 * sample + 1, 5);
      for (int64_t t = 0; t < row_tokens_; ++t) {
        tokens[s * row_tokens_ + t] = static_cast<int32_t>(2 + (start + stride * t) % 59);
      }
    }
    return absl::OkStatus();
  }
  std::string Description() const override { return "formula"; }

 private:
  int64_t row_tokens_;
  Rng rng_;
  uint64_t repeat_after_;
};

inline TrainData FormulaData(const config::RunConfig& config) {
  const auto open = [config](uint64_t seed) {
    return [config, seed](int phase) -> absl::StatusOr<std::unique_ptr<TokenSource>> {
      const int64_t row = config.train().phase(phase).sequence_length() + 1 + config.model().mtp_depth();
      return std::make_unique<FormulaSource>(row, seed);
    };
  };
  TrainData data;
  data.training = open(1);
  data.validation = open(2);
  data.validation_bytes_per_token = 4.0;
  return data;
}

}  // namespace shoestring
