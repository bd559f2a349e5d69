// The input embedding: rows of a table.
#pragma once

#include "kernels/arena.h"
#include "trainer/model/context.h"
#include "trainer/model/cost.h"

namespace shoestring {

struct EmbeddingPending {
  View d_x;  // [T, D] act: gradient of the output; whoever computes it writes here
};
EmbeddingPending AllocateEmbeddingPending(const ModelShape& shape, Arena& arena);

// x [T, D] act = rows `ids` [1, T] i32 of table [V, D] act.
void EmbeddingForward(const LayerContext& ctx, ConstView table, ConstView ids, View x);
// d_table [V, D] f32 += d_x, in token order. There is no input gradient.
void EmbeddingBackwardWeight(const LayerContext& ctx, ConstView ids, const EmbeddingPending& pending, View d_table);
OperationCost EmbeddingCost(const ModelShape& shape);

}  // namespace shoestring
