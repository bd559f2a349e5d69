// The public half of every backend: checks what an operation is handed, counts its work, calls the private body.
#include "kernels/backend.h"

#include "kernels/checker.h"
#include "kernels/host_memory.h"

namespace shoestring {
namespace {

using checks::Checker;
using checks::kAct;
using checks::kAny;
using checks::kF32;
using checks::kF64;
using checks::kFp8;
using checks::kI32;
using checks::kI64;
using checks::kQuantised;
using checks::Only;
using checks::Types;

struct Extents {
  int64_t rows, cols;
};

// What the second operand of a product may be.
Types Partners(const Operand& a) { return a.quantised() ? kFp8 : Only(a.values.dtype); }

void CheckAttention(const Checker& check, const AttentionArgs& args) {
  const AttentionShape& s = args.shape;
  check.Require(s.sequence_length > 0 && s.tokens % s.sequence_length == 0,
                "tokens must be a multiple of sequence_length");
  check.Tensor("q", args.q, kAct, s.tokens, s.heads * (s.nope_dim + s.rope_dim));
  const Types act = Only(args.q.dtype);
  check.Tensor("kv", args.kv, act, s.tokens, s.heads * (s.nope_dim + s.value_dim));
  check.Tensor("k_rope", args.k_rope, act, s.tokens, s.rope_dim);
  check.Optional("first_visible", args.first_visible, kI32, 1, s.tokens);
}

// Half of the rectangles q k^T and p v of every sequence and head.
int64_t AttentionFlops(const AttentionShape& s) {
  return s.tokens * s.sequence_length * s.heads * (s.nope_dim + s.rope_dim + s.value_dim);
}

void CheckGate(const Checker& check, const GateArgs& args) {
  const int64_t experts = args.logits.cols;
  check.Tensor("logits", args.logits, kF32, kAny, kAny);
  check.Optional("bias", args.bias, kF32, 1, experts);
  check.Require(args.groups > 0 && experts % args.groups == 0, "groups must divide the experts");
  check.Require(args.groups_kept > 0 && args.groups_kept <= args.groups, "groups_kept must be in [1, groups]");
  check.Require(args.chosen > 0 && args.chosen <= experts / args.groups * args.groups_kept,
                "chosen must be positive and at most the experts of the kept groups");
}

void CheckSwiGlu(const Checker& check, const SwiGluArgs& args) {
  check.Tensor("gate_up", args.gate_up, kAct, kAny, kAny);
  check.Require(args.gate_up.cols % 2 == 0, "gate_up must have an even number of columns");
  check.Optional("row_weight", args.row_weight, kF32, 1, args.gate_up.rows);
  check.Optional("offsets", args.offsets, kI32, 1, kAny);
}

}  // namespace

// --- memory ---------------------------------------------------------------------------------------------------------

std::unique_ptr<Memory> Backend::Allocate(int64_t size_bytes) { return MapHostMemory(size_bytes); }

void Backend::Zero(Stream& stream, View x) {
  Checker(*this, "Zero").Tensor("x", x, ~Types{0}, kAny, kAny);
  DoZero(stream, x);
}

void Backend::Copy(Stream& stream, ConstView x, View y) {
  const Checker check(*this, "Copy");
  check.Tensor("x", x, ~Types{0}, kAny, kAny);
  const Types to = (Only(x.dtype) & kAct) != 0 ? kAct : Only(x.dtype);
  check.Tensor("y", y, to, x.rows, x.cols);
  DoCopy(stream, x, y);
}

void Backend::CopyToHost(Stream& stream, ConstView x, void* host) {
  const Checker check(*this, "CopyToHost");
  check.Tensor("x", x, ~Types{0}, kAny, kAny);
  check.Contiguous("x", x);
  DoCopyToHost(stream, x, host);
}

void Backend::CopyFromHost(Stream& stream, const void* host, View x) {
  const Checker check(*this, "CopyFromHost");
  check.Tensor("x", x, ~Types{0}, kAny, kAny);
  check.Contiguous("x", x);
  DoCopyFromHost(stream, host, x);
}

void Backend::Add(Stream& stream, ConstView a, ConstView b, View y) {
  const Checker check(*this, "Add");
  check.Tensor("a", a, kAct, kAny, kAny);
  check.Tensor("b", b, kAct, a.rows, a.cols);
  check.Tensor("y", y, kAct, a.rows, a.cols);
  DoAdd(stream, a, b, y);
}

// --- number formats -------------------------------------------------------------------------------------------------

void Backend::Quantize(Stream& stream, const QuantizeArgs& args) {
  const Checker check(*this, "Quantize");
  const ConstView& x = args.x.values;
  const Segments& segments = args.segments;
  check.Require(args.stack >= 1 && x.rows % args.stack == 0, "stack must divide the rows");
  check.WithScales("x", args.x, kAct | kQuantised, kAny, kAny);
  if (args.x.quantised()) check.Require(args.x.tile.rows == 1, "x must have tiles of one row");
  if (segments.groups > 0) {
    check.Require(args.stack == 1, "a matrix is a stack or has segments, not both");
    check.Tensor("segments.offsets", segments.offsets, kI32, 1, segments.groups + 1);
    check.Grouped("y", args.y, kQuantised, x.rows, x.cols, segments.groups);
  } else {
    check.WithScales("y", args.y, kQuantised, x.rows, x.cols, ScaleRows(args.y.tile, x.rows, args.stack));
  }
  if (args.y.values.dtype == DType::kE5M6) {
    check.Require(args.y.tile.rows == 1 && args.y.tile.cols % 2 == 0, "e5m6 is made in tiles of one row, even columns");
  }
  DoQuantize(stream, args);
}

void Backend::Dequantize(Stream& stream, Operand x, View y, int64_t stack, ConstView offsets) {
  const Checker check(*this, "Dequantize");
  check.Require(stack >= 1 && x.values.rows % stack == 0, "stack must divide the rows");
  check.WithScales("x", x, kQuantised, kAny, kAny, ScaleRows(x.tile, x.values.rows, stack));
  check.Tensor("y", y, kAct, x.values.rows, x.values.cols);
  check.Optional("offsets", offsets, kI32, 1, kAny);
  DoDequantize(stream, x, y, stack, offsets);
}

// --- matrix products ------------------------------------------------------------------------------------------------

void Backend::Gemm(Stream& stream, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
                   const Fp8Accumulation& how) {
  const Checker check(*this, "Gemm");
  const bool a_transposed = layout == GemmLayout::kTN;
  check.WithScales("a", a, kAct | kFp8, kAny, kAny);
  const int64_t m = a_transposed ? a.values.cols : a.values.rows;
  const int64_t k = a_transposed ? a.values.rows : a.values.cols;
  const int64_t n = layout == GemmLayout::kNT ? b.values.rows : b.values.cols;
  const Extents b_shape = layout == GemmLayout::kNT ? Extents{n, k} : Extents{k, n};
  check.WithScales("b", b, Partners(a), b_shape.rows, b_shape.cols);
  check.Tensor("c", c, accumulate ? kF32 : kAct, m, n);
  CountGemm(a, 2 * m * n * k);
  DoGemm(stream, layout, a, b, c, accumulate, how);
}

void Backend::GroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b, View c,
                          bool accumulate, const Fp8Accumulation& how) {
  const Checker check(*this, "GroupedGemm");
  const int64_t groups = segments.groups;
  const int64_t rows = segments.max_rows;
  check.Require(groups > 0, "groups must be positive");
  check.Tensor("segments.offsets", segments.offsets, kI32, 1, groups + 1);
  check.Grouped("a", a, kAct | kFp8, rows, kAny, groups);
  int64_t n = b.values.cols;
  if (layout == GemmLayout::kTN) {
    check.Grouped("b", b, Partners(a), rows, n, groups);
    check.Tensor("c", c, accumulate ? kF32 : kAct, groups * a.values.cols, n);
  } else {
    const int64_t k = a.values.cols;
    check.Require(!a.quantised() || a.tile.rows == 1, "tokens must have tiles of one row");
    check.Require(b.values.rows % groups == 0, "b must hold one matrix for each group");
    if (layout == GemmLayout::kNT) n = b.values.rows / groups;
    const Extents b_shape = layout == GemmLayout::kNT ? Extents{groups * n, k} : Extents{groups * k, n};
    check.WithScales("b", b, Partners(a), b_shape.rows, b_shape.cols,
                     b.quantised() ? ScaleRows(b.tile, b_shape.rows, groups) : kAny);
    check.Tensor("c", c, accumulate ? kF32 : kAct, rows, n);
  }
  check.Require(segments.known_rows <= rows, "known_rows must be at most max_rows");
  CountGemm(a, 2 * segments.counted_rows() * n * a.values.cols);
  DoGroupedGemm(stream, layout, segments, a, b, c, accumulate, how);
}

void Backend::CountGemm(const Operand& a, int64_t flops) {
  work_.gemm_flops += flops;
  if (a.quantised()) work_.fp8_gemm_flops += flops;
}

// --- norms, positions, attention, activation ------------------------------------------------------------------------

void Backend::RmsNorm(Stream& stream, const RmsNormArgs& args) {
  const Checker check(*this, "RmsNorm");
  const int64_t rows = args.x.rows;
  const int64_t cols = args.x.cols;
  check.Tensor("x", args.x, kAct, kAny, kAny);
  const Types act = Only(args.x.dtype);
  check.Optional("delta", args.delta, act, rows, cols);
  if (args.delta) check.Tensor("sum", args.sum, act, rows, cols);
  check.Tensor("gain", args.gain, act | kF32, 1, cols);
  check.WithScales("y", args.y, act | kFp8, rows, cols);
  if (args.y.quantised()) check.Require(args.y.tile.rows == 1, "y must have tiles of one row");
  check.Optional("inverse_rms", args.inverse_rms, kF32, 1, rows);
  DoRmsNorm(stream, args);
}

void Backend::RmsNormBackwardInput(Stream& stream, const RmsNormBackwardInputArgs& args) {
  const Checker check(*this, "RmsNormBackwardInput");
  const int64_t rows = args.x.rows;
  const int64_t cols = args.x.cols;
  check.Tensor("x", args.x, kAct, kAny, kAny);
  const Types act = Only(args.x.dtype);
  check.Tensor("dy", args.dy, act, rows, cols);
  check.Tensor("gain", args.gain, act | kF32, 1, cols);
  check.Tensor("inverse_rms", args.inverse_rms, kF32, 1, rows);
  check.Optional("add", args.add, act, rows, cols);
  check.Tensor("dx", args.dx, act, rows, cols);
  DoRmsNormBackwardInput(stream, args);
}

void Backend::RmsNormBackwardWeight(Stream& stream, const RmsNormBackwardWeightArgs& args) {
  const Checker check(*this, "RmsNormBackwardWeight");
  check.Tensor("x", args.x, kAct, kAny, kAny);
  check.Tensor("dy", args.dy, Only(args.x.dtype), args.x.rows, args.x.cols);
  check.Tensor("inverse_rms", args.inverse_rms, kF32, 1, args.x.rows);
  check.Tensor("d_gain", args.d_gain, kF32, 1, args.x.cols);
  DoRmsNormBackwardWeight(stream, args);
}

void Backend::Rope(Stream& stream, const RopeArgs& args) {
  const Checker check(*this, "Rope");
  check.Tensor("x", args.x, kAct, kAny, kAny);
  check.Tensor("cos_table", args.cos_table, kF32, kAny, kAny);
  check.Tensor("sin_table", args.sin_table, kF32, args.cos_table.rows, args.cos_table.cols);
  check.Tensor("positions", args.positions, kI32, 1, args.x.rows);
  const int64_t width = 2 * args.cos_table.cols;
  check.Require(args.heads >= 1 && args.offset >= 0, "heads must be positive and offset not negative");
  check.Require(args.heads == 1 || args.head_stride >= width, "head_stride must be at least 2 * pairs");
  check.Require((args.heads - 1) * args.head_stride + args.offset + width <= args.x.cols,
                "the last head's stripe must end within x");
  DoRope(stream, args);
}

void Backend::AttentionForward(Stream& stream, const AttentionArgs& args, View out, View log_sum_exp, View workspace) {
  const Checker check(*this, "AttentionForward");
  const AttentionShape& s = args.shape;
  CheckAttention(check, args);
  check.Tensor("out", out, Only(args.q.dtype), s.tokens, s.heads * s.value_dim);
  check.Tensor("log_sum_exp", log_sum_exp, kF32, s.tokens, s.heads);
  check.Require(workspace.contiguous() && workspace.bytes() >= AttentionWorkspaceBytes(s, false),
                "workspace is smaller than AttentionWorkspaceBytes");
  work_.attention_flops += AttentionFlops(s);
  DoAttentionForward(stream, args, out, log_sum_exp, workspace);
}

void Backend::AttentionBackward(Stream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                                View workspace) {
  const Checker check(*this, "AttentionBackward");
  const AttentionShape& s = args.shape;
  CheckAttention(check, args);
  const Types act = Only(args.q.dtype);
  check.Tensor("out", grads.out, act, s.tokens, s.heads * s.value_dim);
  check.Tensor("log_sum_exp", grads.log_sum_exp, kF32, s.tokens, s.heads);
  check.Tensor("d_out", grads.d_out, act, s.tokens, s.heads * s.value_dim);
  check.Tensor("d_q", grads.d_q, act, args.q.rows, args.q.cols);
  check.Tensor("d_kv", grads.d_kv, act, args.kv.rows, args.kv.cols);
  check.Tensor("d_k_rope", grads.d_k_rope, act, s.tokens, s.rope_dim);
  check.Require(workspace.contiguous() && workspace.bytes() >= AttentionWorkspaceBytes(s, true),
                "workspace is smaller than AttentionWorkspaceBytes");
  work_.attention_flops += 2 * AttentionFlops(s);
  DoAttentionBackward(stream, args, grads, workspace);
}

void Backend::SwiGlu(Stream& stream, const SwiGluArgs& args, MutableOperand y) {
  const Checker check(*this, "SwiGlu");
  CheckSwiGlu(check, args);
  check.WithScales("y", y, Only(args.gate_up.dtype) | kFp8, args.gate_up.rows, args.gate_up.cols / 2);
  if (y.quantised()) check.Require(y.tile.rows == 1, "y must have tiles of one row");
  DoSwiGlu(stream, args, y);
}

void Backend::SwiGluBackward(Stream& stream, const SwiGluArgs& args, ConstView dy, View d_gate_up, View d_row_weight) {
  const Checker check(*this, "SwiGluBackward");
  CheckSwiGlu(check, args);
  const Types act = Only(args.gate_up.dtype);
  check.Tensor("dy", dy, act, args.gate_up.rows, args.gate_up.cols / 2);
  check.Tensor("d_gate_up", d_gate_up, act, args.gate_up.rows, args.gate_up.cols);
  check.Optional("d_row_weight", d_row_weight, kF32, 1, args.gate_up.rows);
  DoSwiGluBackward(stream, args, dy, d_gate_up, d_row_weight);
}

// --- router and exchange of tokens ----------------------------------------------------------------------------------

void Backend::Gate(Stream& stream, const GateArgs& args, const GateResult& result) {
  const Checker check(*this, "Gate");
  CheckGate(check, args);
  check.Tensor("scores", result.scores, kF32, args.logits.rows, args.logits.cols);
  check.Tensor("experts", result.experts, kI32, args.logits.rows, args.chosen);
  check.Tensor("weights", result.weights, kF32, args.logits.rows, args.chosen);
  check.Tensor("counts", result.counts, kI64, 1, args.logits.cols);
  DoGate(stream, args, result);
}

void Backend::GateBackward(Stream& stream, const GateArgs& args, const GateBackwardArgs& grads) {
  const Checker check(*this, "GateBackward");
  const int64_t tokens = grads.scores.rows;
  const int64_t experts = grads.scores.cols;
  check.Tensor("scores", grads.scores, kF32, kAny, kAny);
  check.Tensor("experts", grads.experts, kI32, tokens, args.chosen);
  check.Tensor("d_weights", grads.d_weights, kF32, tokens, args.chosen);
  check.Optional("d_scores", grads.d_scores, kF32, tokens, experts);
  check.Tensor("d_logits", grads.d_logits, kF32, tokens, experts);
  DoGateBackward(stream, args, grads);
}

void Backend::SequenceBalance(Stream& stream, const SequenceBalanceArgs& args) {
  const Checker check(*this, "SequenceBalance");
  check.Tensor("scores", args.scores, kF32, kAny, kAny);
  check.Require(args.sequence_length > 0 && args.scores.rows % args.sequence_length == 0,
                "tokens must be a multiple of sequence_length");
  check.Require(args.chosen > 0 && args.chosen <= args.scores.cols, "chosen must be in [1, experts]");
  check.Tensor("loss", args.loss, kF32, 1, args.scores.rows / args.sequence_length);
  check.Optional("d_scores", args.d_scores, kF32, args.scores.rows, args.scores.cols);
  DoSequenceBalance(stream, args);
}

void Backend::PlanDispatch(Stream& stream, const PlanDispatchArgs& args) {
  const Checker check(*this, "PlanDispatch");
  check.Tensor("experts", args.experts, kI32, kAny, kAny);
  const int64_t rows = args.experts.elements();
  check.Tensor("offsets", args.offsets, kI32, 1, args.expert_count + 1);
  check.Tensor("row_token", args.row_token, kI32, 1, rows);
  check.Tensor("row_slot", args.row_slot, kI32, 1, rows);
  check.Tensor("slot_row", args.slot_row, kI32, args.experts.rows, args.experts.cols);
  DoPlanDispatch(stream, args);
}

void Backend::GatherRows(Stream& stream, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) {
  const Checker check(*this, "GatherRows");
  check.WithScales("x", x, kAct | kFp8, kAny, kAny);
  check.Tensor("row_token", row_token, kI32, 1, kAny);
  check.Tensor("offsets", offsets, kI32, 1, kAny);
  check.WithScales("y", y, Only(x.values.dtype), row_token.cols, x.values.cols);
  check.Require(x.tile.rows == y.tile.rows && x.tile.cols == y.tile.cols && x.tile.rows <= 1,
                "x and y must have the same tiles of one row");
  DoGatherRows(stream, x, row_token, offsets, y);
}

void Backend::GatherChosen(Stream& stream, ConstView chosen_values, ConstView row_slot, ConstView offsets,
                           View row_values) {
  const Checker check(*this, "GatherChosen");
  check.Tensor("chosen_values", chosen_values, kF32, kAny, kAny);
  check.Contiguous("chosen_values", chosen_values);
  check.Tensor("row_slot", row_slot, kI32, 1, kAny);
  check.Tensor("offsets", offsets, kI32, 1, kAny);
  check.Tensor("row_values", row_values, kF32, 1, row_slot.cols);
  DoGatherChosen(stream, chosen_values, row_slot, offsets, row_values);
}

void Backend::ScatterChosen(Stream& stream, ConstView row_values, ConstView slot_row, View chosen_values) {
  const Checker check(*this, "ScatterChosen");
  check.Tensor("row_values", row_values, kF32, 1, kAny);
  check.Tensor("slot_row", slot_row, kI32, kAny, kAny);
  check.Tensor("chosen_values", chosen_values, kF32, slot_row.rows, slot_row.cols);
  DoScatterChosen(stream, row_values, slot_row, chosen_values);
}

void Backend::CombineRows(Stream& stream, const CombineArgs& args, View out) {
  const Checker check(*this, "CombineRows");
  check.Tensor("y", args.y, kAct, kAny, kAny);
  const Types act = Only(args.y.dtype);
  check.Tensor("slot_row", args.slot_row, kI32, kAny, kAny);
  const int64_t tokens = args.slot_row.rows;
  check.Tensor("experts", args.experts, kI32, tokens, args.slot_row.cols);
  check.Require(args.experts_per_group > 0, "experts_per_group must be positive");
  check.Optional("base", args.base, act, tokens, args.y.cols);
  check.Tensor("out", out, act, tokens, args.y.cols);
  DoCombineRows(stream, args, out);
}

// --- ends of the model ----------------------------------------------------------------------------------------------

void Backend::Embedding(Stream& stream, ConstView ids, ConstView table, View x) {
  const Checker check(*this, "Embedding");
  check.Tensor("ids", ids, kI32, 1, kAny);
  check.Tensor("table", table, kAct, kAny, kAny);
  check.Tensor("x", x, kAct, ids.cols, table.cols);
  DoEmbedding(stream, ids, table, x);
}

void Backend::EmbeddingBackward(Stream& stream, ConstView ids, ConstView dx, View d_table) {
  const Checker check(*this, "EmbeddingBackward");
  check.Tensor("ids", ids, kI32, 1, kAny);
  check.Tensor("dx", dx, kAct, ids.cols, kAny);
  check.Tensor("d_table", d_table, kF32, kAny, dx.cols);
  DoEmbeddingBackward(stream, ids, dx, d_table);
}

void Backend::CrossEntropy(Stream& stream, const CrossEntropyArgs& args) {
  const Checker check(*this, "CrossEntropy");
  check.Tensor("logits", args.logits, kF32, kAny, kAny);
  check.Tensor("targets", args.targets, kI32, 1, args.logits.rows);
  check.Tensor("loss", args.loss, kF32, 1, args.logits.rows);
  check.Optional("d_logits", args.d_logits, kAct, args.logits.rows, args.logits.cols);
  DoCrossEntropy(stream, args);
}

void Backend::SumRows(Stream& stream, ConstView x, View sum) {
  const Checker check(*this, "SumRows");
  check.Tensor("x", x, kF32, 1, kAny);
  check.Tensor("sum", sum, kF64, 1, 1);
  DoSumRows(stream, x, sum);
}

// --- optimizer ------------------------------------------------------------------------------------------------------

void Backend::SquaredNorm(Stream& stream, ConstView x, View block_sums) {
  const Checker check(*this, "SquaredNorm");
  check.Tensor("x", x, kF32, kAny, kAny);
  check.Contiguous("x", x);
  check.Tensor("block_sums", block_sums, kF64, 1, NormBlocks(x.elements()));
  DoSquaredNorm(stream, x, block_sums);
}

void Backend::AdamW(Stream& stream, const AdamWArgs& args) {
  const Checker check(*this, "AdamW");
  const int64_t count = args.master.elements();
  const auto same_count = [&](const char* name, const ConstView& x, Types types) {
    check.Tensor(name, x, types, kAny, kAny);
    check.Contiguous(name, x);
    check.Require(x.elements() == count, "all tensors must have as many elements as master");
  };
  same_count("master", args.master, kF32);
  same_count("grad", args.grad, kF32);
  same_count("m", args.m, kAct);
  same_count("v", args.v, kAct);
  if (args.compute) same_count("compute", args.compute, kAct);
  check.Require(args.step >= 1, "step counts from 1");
  DoAdamW(stream, args);
}

void Backend::Ema(Stream& stream, ConstView weights, double decay, View ema) {
  const Checker check(*this, "Ema");
  check.Tensor("weights", weights, kF32, kAny, kAny);
  check.Tensor("ema", ema, kF32, weights.rows, weights.cols);
  DoEma(stream, weights, decay, ema);
}

}  // namespace shoestring
