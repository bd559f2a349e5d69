// The shape of the model as plain numbers: what layers read instead of the config.
#pragma once

#include <cstdint>

#include "configs/schema/model.pb.h"
#include "configs/schema/precision.pb.h"
#include "configs/schema/run.pb.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"
#include "trainer/model/precision.h"

namespace shoestring {

// Rotary positions; with YaRN when `factor` is above 1 (arXiv 2309.00071; V3 report, section 4.3).
struct RopeSettings {
  double theta = 10000;
  double factor = 1;
  double original_length = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 0;
  double mscale_all_dim = 0;
};

// Epsilon of the norms of both latents. The released code builds these two without its rms_norm_eps.
inline constexpr double kLatentNormEps = 1e-6;

// Sizes of the model and of one micro-batch. Letters are those of docs/notation.md.
struct ModelShape {
  int64_t sequences = 1;        // of a micro-batch
  int64_t sequence_length = 0;  // S
  int64_t vocab = 0;            // V
  int64_t layers = 0;           // main model
  int64_t hidden = 0;           // D
  int64_t heads = 0;            // H
  int64_t nope = 0;             // channels of query and key without position, a head
  int64_t rope = 0;             // channels with position
  int64_t value = 0;            // channels of a value, a head
  int64_t q_rank = 0;           // query latent; 0: none
  int64_t kv_rank = 0;          // latent of keys and values
  int64_t dense_layers = 0;
  int64_t dense_ffn = 0;
  int64_t experts = 0;     // E; 0: all layers are dense
  int64_t shared_ffn = 0;  // width of all shared experts together; 0: none
  int64_t chosen = 0;      // K
  int64_t expert_ffn = 0;  // F
  int64_t groups = 1;
  int64_t groups_kept = 1;
  GateKind gate = GateKind::kSigmoid;
  GroupScore group_score = GroupScore::kTop2Sum;
  bool renormalize = true;
  double routed_scaling = 1;
  int64_t mtp_depth = 0;
  double norm_eps = 1e-6;  // of every norm but those of the latents
  RopeSettings rope_settings;
  DType act = DType::kF32;
  PrecisionFormats formats;

  int64_t tokens() const { return sequences * sequence_length; }             // T
  int64_t query_width() const { return heads * (nope + rope); }              // columns of q
  int64_t kv_width() const { return heads * (nope + value); }                // columns of kv
  int64_t value_width() const { return heads * value; }                      // columns of the attention's output
  int64_t q_a_width() const { return q_rank > 0 ? q_rank : query_width(); }  // first columns of qkv_a
  int64_t qkv_a_width() const { return q_a_width() + kv_rank + rope; }       // A
  bool is_moe(int64_t layer) const { return experts > 0 && layer >= dense_layers; }
  // Layers with experts, MTP modules included, which have them if the last layer has.
  int64_t expert_layers() const { return is_moe(layers - 1) ? layers - dense_layers + mtp_depth : 0; }
  AttentionShape attention() const { return {tokens(), sequence_length, heads, nope, rope, value}; }
};

// `yarn` null: plain RoPE (a phase without its own takes model.yarn; the caller decides). FP8 computes in BF16
// activations.
ModelShape MakeModelShape(const config::ModelConfig& model, const config::YarnConfig* yarn,
                          const config::PrecisionConfig& precision, int64_t sequences, int64_t sequence_length);

// What is computed again in backward instead of kept; never changes a bit (V3 report, section 3.2.3).
struct RecomputeOptions {
  bool norms = false;   // outputs of every RMSNorm, latents included
  bool mla_up = false;  // queries, keys and values expanded from their latents
  bool swiglu = false;  // outputs of SwiGLU
};
RecomputeOptions MakeRecomputeOptions(const config::RecomputeConfig& config);

}  // namespace shoestring
