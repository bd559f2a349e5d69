// Multi-head latent attention with the norm before it (V3 report, equations 1 to 11; recipe: V2 report, appendix C).
#pragma once

#include <string>

#include "kernels/arena.h"
#include "trainer/model/context.h"
#include "trainer/model/cost.h"
#include "trainer/model/weight_visitor.h"

namespace shoestring {

// Also the type of their gradients (f32). Without a query latent q_norm and q_b do not exist and the first rows of
// qkv_a are the query projection itself.
struct MlaWeights {
  View norm;  // [1, D] f32 gain
  MutableOperand
      qkv_a;    // [A, D]: rows of the query latent (or the queries), of the key-value latent, of the shared RoPE key
  View q_norm;  // [1, q_rank] f32
  MutableOperand q_b;   // [H*(nope+rope), q_rank]: a head's part without position, then with
  View kv_norm;         // [1, kv_rank] f32
  MutableOperand kv_b;  // [H*(nope+value), kv_rank]: a head's key part, then its value
  MutableOperand o;     // [D, H*value]
};
void VisitMlaWeights(const ModelShape& shape, const std::string& prefix, MlaWeights& weights, WeightVisitor visit);

// What backward reads. Those marked (r) are empty when recomputed; (i): inputs of linear layers, as the recipe caches
// them.
struct MlaSaved {
  View x;                 // [T, D] act: the block's input; whoever computes it writes here
  View inverse_rms;       // [1, T] f32
  MutableOperand normed;  // [T, D] (i, r norms)
  View qkv_a;             // [T, A] act: latents before their norms; queries without latent and the RoPE key, rotated
  View q_inverse_rms;     // [1, T] f32; empty without query latent
  View kv_inverse_rms;    // [1, T] f32
  MutableOperand c_q;     // [T, q_rank] (i, r norms); empty without query latent
  MutableOperand c_kv;    // [T, kv_rank] (i, r norms)
  View q;                 // [T, H*(nope+rope)] act, rotated (r mla_up); columns of qkv_a without query latent
  View kv;                // [T, H*(nope+value)] act (r mla_up)
  MutableOperand out;     // [T, H*value]: the attention core's output, as the recipe caches it
  View log_sum_exp;       // [T, H] f32
};
MlaSaved AllocateMlaSaved(const ModelShape& shape, const RecomputeOptions& recompute, Arena& arena);

// What weight gradients need beyond Saved; all act.
struct MlaPending {
  View d_out;     // [T, D]: gradient of the layer's output, written by the caller before BackwardInput
  View d_q;       // [T, H*(nope+rope)]; columns of d_qkv_a without query latent
  View d_kv;      // [T, H*(nope+value)]
  View d_c_q;     // [T, q_rank]; empty without query latent
  View d_c_kv;    // [T, kv_rank]
  View d_qkv_a;   // [T, A]
  View d_normed;  // [T, D]
};
MlaPending AllocateMlaPending(const ModelShape& shape, Arena& arena);

// Reads saved.x, writes the rest of `saved` and out [T, D] act (not yet added to the residual stream).
void MlaForward(const LayerContext& ctx, const MlaWeights& weights, const MlaSaved& saved, View out);
// dx [T, D] = add [T, D] (residual path) + gradient of the layer's input.
void MlaBackwardInput(const LayerContext& ctx, const MlaWeights& weights, const MlaSaved& saved,
                      const MlaPending& pending, ConstView add, View dx);
// Adds to the gradients. `weights` are read where norms are recomputed.
void MlaBackwardWeight(const LayerContext& ctx, const MlaWeights& weights, const MlaSaved& saved,
                       const MlaPending& pending, const MlaWeights& grads);
OperationCost MlaCost(const ModelShape& shape, const RecomputeOptions& recompute);

}  // namespace shoestring
