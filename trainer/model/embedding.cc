// Looks rows up and adds gradients to them.
#include "trainer/model/embedding.h"

namespace shoestring {

EmbeddingPending AllocateEmbeddingPending(const ModelShape& s, Arena& arena) {
  return {arena.Allocate(Purpose::kPending, "embedding.d_x", s.act, s.tokens(), s.hidden)};
}

void EmbeddingForward(const LayerContext& ctx, ConstView table, ConstView ids, View x) {
  ctx.backend.Embedding(ctx.stream, ids, table, x);
}

void EmbeddingBackwardWeight(const LayerContext& ctx, ConstView ids, const EmbeddingPending& pending, View d_table) {
  ctx.backend.EmbeddingBackward(ctx.stream, ids, pending.d_x, d_table);
}

OperationCost EmbeddingCost(const ModelShape& s) {
  OperationCost cost;
  Arena measure = Arena::Measuring();
  AllocateEmbeddingPending(s, measure);
  cost.pending_bytes = measure.high_water_bytes(Purpose::kPending);
  return cost;
}

}  // namespace shoestring
