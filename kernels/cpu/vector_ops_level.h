// Collects one level's vector loops into the table.
#pragma once

#include "kernels/cpu/dispatch_level.h"
#include "kernels/cpu/elementwise_level.h"
#include "kernels/cpu/embedding_level.h"
#include "kernels/cpu/gate_level.h"
#include "kernels/cpu/loss_level.h"
#include "kernels/cpu/norm_level.h"
#include "kernels/cpu/optimizer_level.h"
#include "kernels/cpu/quantise_level.h"
#include "kernels/cpu/rope_level.h"
#include "kernels/cpu/swiglu_level.h"

namespace shoestring::simd {
inline namespace SHOESTRING_SIMD_LEVEL {

constexpr VectorOps MakeVectorOps() {
  return {
      .add = AddRows,
      .copy = CopyRows,
      .rms_norm = RmsNormRows,
      .rms_norm_backward_input = RmsNormBackwardInputRows,
      .rms_norm_backward_weight = RmsNormBackwardWeight,
      .rope = RopeRows,
      .swiglu = SwiGluRows,
      .swiglu_backward = SwiGluBackwardRows,
      .scores = ScoreRows,
      .gate_backward = GateBackwardRows,
      .balance = BalanceRows,
      .combine = CombineTokens,
      .embedding_backward = EmbeddingBackwardCols,
      .cross_entropy = CrossEntropyRows,
      .adamw = AdamWElements,
      .ema = EmaElements,
      .squared_norm = SquaredNormOf,
      .quantise = QuantiseRows,
      .dequantise = DequantiseRow,
  };
}

}  // namespace SHOESTRING_SIMD_LEVEL
}  // namespace shoestring::simd
