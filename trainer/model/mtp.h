// The beginning of a multi-token prediction module: it joins a hidden state with a later token's embedding (V3 report,
// equation 21). A block and a head follow.
#pragma once

#include <string>

#include "kernels/arena.h"
#include "trainer/model/context.h"
#include "trainer/model/cost.h"
#include "trainer/model/embedding.h"
#include "trainer/model/weight_visitor.h"

namespace shoestring {

// Also the type of their gradients (f32). `embedding` is shared with the main model; its gradient here is this use's.
struct MtpJoinWeights {
  View embedding;       // [V, D]
  View embedding_norm;  // [1, D] f32 gain
  View hidden_norm;     // [1, D] f32 gain
  View join;            // [D, 2D]: columns of the embedding first, as in the released weights
};
// `prefix`: "model.layers.N.", N = layers + k - 1 for module k, which is also the use of the embedding.
void VisitMtpJoinWeights(const std::string& prefix, int use, MtpJoinWeights& weights, WeightVisitor visit);

struct MtpJoinSaved {
  View embedded;               // [T, D] act
  View embedding_inverse_rms;  // [1, T] f32
  View hidden_inverse_rms;     // [1, T] f32
  View joined;                 // [T, 2D] act: both norms; empty when norms are recomputed
};
MtpJoinSaved AllocateMtpJoinSaved(const ModelShape& shape, const RecomputeOptions& recompute, Arena& arena);

struct MtpJoinPending {
  View d_out;     // [T, D] act: gradient of the output; whoever computes it writes here
  View d_joined;  // [T, 2D] act
  EmbeddingPending embedding;
};
MtpJoinPending AllocateMtpJoinPending(const ModelShape& shape, Arena& arena);

// out [T, D] act = join [norm(embedding of ids); norm(hidden)]. hidden [T, D] act: output of the last block (or of the
// module before), before the final norm; it is read again in backward.
void MtpJoinForward(const LayerContext& ctx, const MtpJoinWeights& weights, ConstView ids, ConstView hidden,
                    const MtpJoinSaved& saved, View out);
// d_hidden [T, D] act: assigned.
void MtpJoinBackwardInput(const LayerContext& ctx, const MtpJoinWeights& weights, ConstView hidden,
                          const MtpJoinSaved& saved, const MtpJoinPending& pending, View d_hidden);
void MtpJoinBackwardWeight(const LayerContext& ctx, const MtpJoinWeights& weights, ConstView ids, ConstView hidden,
                           const MtpJoinSaved& saved, const MtpJoinPending& pending, const MtpJoinWeights& grads);
OperationCost MtpJoinCost(const ModelShape& shape, const RecomputeOptions& recompute);

}  // namespace shoestring
