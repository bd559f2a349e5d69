// A transformer layer as a list of parts, so that the parts of two layers can be interleaved.
#pragma once

#include <array>
#include <string>

#include "trainer/model/mla.h"
#include "trainer/model/moe.h"

namespace shoestring {

// Forward runs the parts in this order, input gradients in the opposite one. Between kDispatch and kExperts, and
// between kExperts and kCombine, rows travel (in backward: between the same parts). A dense layer computes all of its
// feed-forward in kExperts.
enum class BlockPart { kAttention, kDispatch, kExperts, kCombine };
constexpr std::array<BlockPart, 4> kForwardParts = {BlockPart::kAttention, BlockPart::kDispatch, BlockPart::kExperts,
                                                    BlockPart::kCombine};
constexpr std::array<BlockPart, 4> kBackwardParts = {BlockPart::kCombine, BlockPart::kExperts, BlockPart::kDispatch,
                                                     BlockPart::kAttention};

// Also the type of their gradients (f32). Either dense or moe is used.
struct BlockWeights {
  MlaWeights attention;
  View norm;  // [1, D] f32: gain before the feed-forward layer
  MlpWeights dense;
  MoeWeights moe;
};
// `prefix`: "model.layers.N.".
void VisitBlockWeights(const ModelShape& shape, bool is_moe, const std::string& prefix, BlockWeights& weights,
                       WeightVisitor visit);

struct BlockSaved {
  MlaSaved attention;  // attention.x is the block's input
  View u;              // [T, D] act: residual stream after attention
  View inverse_rms;    // [1, T] f32
  // [T, D]: input of the feed-forward layer; act where a router reads it, too, else as the recipe caches inputs of
  // linear layers; empty when norms are recomputed.
  MutableOperand normed;
  MlpSaved dense;
  MoeSaved moe;
};
BlockSaved AllocateBlockSaved(const ModelShape& shape, const RecomputeOptions& recompute, bool is_moe,
                              const ExpertExchange& exchange, Arena& arena);

struct BlockPending {
  MlaPending attention;  // attention.d_out is the gradient of u
  View d_out;            // [T, D] act: gradient of the block's output; whoever computes it writes here
  View d_normed;         // [T, D] act
  MlpPending dense;
  MoePending moe;
};
BlockPending AllocateBlockPending(const ModelShape& shape, bool is_moe, const ExpertExchange& exchange, Arena& arena);

// What lives from one part to the next in one direction; blocks that are interleaved need one each.
struct BlockWorkspace {
  View branch;  // [T, D] act: output of attention, later of the dense feed-forward layer
  View normed;  // [T, D] act: the feed-forward layer's input where BlockSaved::normed is no place for it; else empty
  MoeWorkspace moe;
};
// `sent`: the format in which rows travel to experts in that direction.
BlockWorkspace AllocateBlockWorkspace(const ModelShape& shape, const RecomputeOptions& recompute,
                                      const OperandFormat& sent, const ExpertExchange& exchange, Arena& arena);

// A block on one micro-batch: everything its parts need.
struct BlockRun {
  const LayerContext& ctx;
  const ExpertExchange& exchange;
  const BlockWeights& weights;
  bool is_moe;
  RouterStatistics statistics;  // of an MoE block
  const BlockSaved& saved;
  const BlockWorkspace& workspace;
};

// Reads saved.attention.x; kCombine writes out [T, D] act.
void BlockForward(const BlockRun& run, BlockPart part, View out);
// Reads pending.d_out; kAttention writes dx [T, D] act.
void BlockBackwardInput(const BlockRun& run, BlockPart part, const BlockPending& pending, View dx);
// Experts left out (expert_sums.h).
void BlockBackwardWeight(const BlockRun& run, const BlockPending& pending, const BlockWeights& grads);
OperationCost BlockCost(const ModelShape& shape, const RecomputeOptions& recompute, bool is_moe,
                        const ExpertExchange& exchange);

}  // namespace shoestring
