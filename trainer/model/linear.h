// Products of linear layers, of which the operands are quantised as the recipe says (V3 report, sections 3.3.1, 3.3.2).
//
// All that is quantised for a product is quantised here, so that a backend that wants its operands otherwise (stored
// along the contracted dimension, say) has one place to ask for it. Without FP8 each function is one plain product.
//
// `segments`: rows belong to experts, weights are a stack of one matrix an expert; without groups: a dense layer.
#pragma once

#include "trainer/model/context.h"

namespace shoestring {

// y [T, N] = x [T, K] W^T. x: act, which is quantised here; or quantised already.
void LinearForward(const LayerContext& ctx, const Operand& x, const Operand& weight, View y,
                   const Segments& segments = {});
// dx [T, K] = dy [T, N] W. dy: act, or quantised already.
void LinearBackwardInput(const LayerContext& ctx, const Operand& dy, const Operand& weight, View dx,
                         const Segments& segments = {});
// d_weight [N, K] f32 += dy^T x, both regrouped along the tokens. x as backward knows it: see AsCached.
void LinearBackwardWeight(const LayerContext& ctx, const Operand& dy, const Operand& x, View d_weight,
                          const Segments& segments = {});

// The input of a linear layer, as backward may know it. Which rounding that is, is a question of precision; whether it
// is kept or made anew, one of memory: so backward always reads what AsCached says, wherever x comes from.
//
// `x`, or, if it is act and `format` is quantised, what remains of it, in the open scope. Rows that do not exist are
// not touched.
Operand AsCached(const LayerContext& ctx, const Operand& x, const OperandFormat& format, const Segments& segments = {});

// Where the producer of a linear layer's input [rows, cols] writes it: `kept`, if there is such a place and forward
// reads what is kept there; else room in the open scope.
MutableOperand InputPlace(const LayerContext& ctx, const MutableOperand& kept, const char* name, int64_t rows,
                          int64_t cols);
// After x is there: rounds it into `kept`, unless it was written there or is not kept.
void KeepRounded(const LayerContext& ctx, const Operand& x, const MutableOperand& kept, const Segments& segments = {});
// x as act: itself, or its values in the open scope.
ConstView AsAct(const LayerContext& ctx, const Operand& x, const Segments& segments = {});

}  // namespace shoestring
