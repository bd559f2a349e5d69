// Quantise, multiply; one code for a dense layer and for a stack of experts.
#include "trainer/model/linear.h"

namespace shoestring {
namespace {

MutableOperand ScratchOperand(const LayerContext& ctx, const OperandFormat& format, int64_t rows, int64_t cols,
                              const Segments& segments) {
  return AllocateOperand(ctx.scratch, Purpose::kScratch, "linear.operand", format, rows, cols, /*stack=*/1,
                         segments.groups);
}

// x in `format`, in the open scope; itself if the format is plain.
Operand Quantised(const LayerContext& ctx, const Operand& x, const OperandFormat& format, const Segments& segments) {
  if (!format.quantised()) return x;
  const MutableOperand y = ScratchOperand(ctx, format, x.values.rows, x.values.cols, segments);
  ctx.backend.Quantize(ctx.stream, {x, y, /*stack=*/1, segments});
  return y;
}

// Codes whose scales are powers of two keep all their bits only under scales that are such, too.
Operand Regrouped(const LayerContext& ctx, const Operand& x, OperandFormat format, const Segments& segments) {
  format.power_of_two = format.power_of_two || (x.quantised() && x.power_of_two);
  return Quantised(ctx, x, format, segments);
}

void Multiply(const LayerContext& ctx, GemmLayout layout, const Segments& segments, const Operand& a, const Operand& b,
              View c, bool accumulate) {
  const Fp8Accumulation& how = ctx.shape.formats.accumulation;
  if (segments.groups > 0) {
    ctx.backend.GroupedGemm(ctx.stream, layout, segments, a, b, c, accumulate, how);
  } else {
    ctx.backend.Gemm(ctx.stream, layout, a, b, c, accumulate, how);
  }
}

}  // namespace

void LinearForward(const LayerContext& ctx, const Operand& x, const Operand& weight, View y, const Segments& segments) {
  ArenaScope scope(ctx.scratch);
  const Operand operand = x.quantised() ? x : Quantised(ctx, x, ctx.shape.formats.activation, segments);
  Multiply(ctx, GemmLayout::kNT, segments, operand, weight, y, /*accumulate=*/false);
}

void LinearBackwardInput(const LayerContext& ctx, const Operand& dy, const Operand& weight, View dx,
                         const Segments& segments) {
  ArenaScope scope(ctx.scratch);
  const Operand operand = dy.quantised() ? dy : Quantised(ctx, dy, ctx.shape.formats.gradient, segments);
  Multiply(ctx, GemmLayout::kNN, segments, operand, weight, dx, /*accumulate=*/false);
}

void LinearBackwardWeight(const LayerContext& ctx, const Operand& dy, const Operand& x, View d_weight,
                          const Segments& segments) {
  ArenaScope scope(ctx.scratch);
  const PrecisionFormats& formats = ctx.shape.formats;
  const Operand gradient = Regrouped(ctx, dy, formats.gradient_by_tokens, segments);
  const Operand input = Regrouped(ctx, x, formats.activation_by_tokens, segments);
  Multiply(ctx, GemmLayout::kTN, segments, gradient, input, d_weight, /*accumulate=*/true);
}

Operand AsCached(const LayerContext& ctx, const Operand& x, const OperandFormat& format, const Segments& segments) {
  return x.quantised() ? x : Quantised(ctx, x, format, segments);
}

MutableOperand InputPlace(const LayerContext& ctx, const MutableOperand& kept, const char* name, int64_t rows,
                          int64_t cols) {
  const PrecisionFormats& formats = ctx.shape.formats;
  if (!formats.input_made_as_kept()) return ctx.Scratch(name, ctx.shape.act, rows, cols);
  if (kept) return kept;
  return AllocateOperand(ctx.scratch, Purpose::kScratch, name, formats.cached_linear_input, rows, cols);
}

void KeepRounded(const LayerContext& ctx, const Operand& x, const MutableOperand& kept, const Segments& segments) {
  if (!kept || kept.values.data == x.values.data) return;
  ctx.backend.Quantize(ctx.stream, {x, kept, /*stack=*/1, segments});
}

ConstView AsAct(const LayerContext& ctx, const Operand& x, const Segments& segments) {
  if (!x.quantised()) return x.values;
  const View y = ctx.Scratch("linear.dequantised", ctx.shape.act, x.values.rows, x.values.cols);
  ctx.backend.Dequantize(ctx.stream, x, y, /*stack=*/1, segments.offsets);
  return y;
}

}  // namespace shoestring
