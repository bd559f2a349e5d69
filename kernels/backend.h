// The menu of the hardware: every operation that training needs, at the granularity of a fused GPU kernel.
//
// Public methods check shapes and dtypes and abort on a mismatch (a programmer's error); private bodies compute. Work
// is enqueued on an explicit stream in order; the CPU backend has finished when a call returns. No operation allocates:
// what needs space takes a `workspace`. The plain float64 loop that defines each operation is in
// tests/kernels/reference/; every backend is tested against it.
//
// "act" below is the activation dtype: bf16, or f32 in the FP32 mode. Shapes use docs/notation.md: T tokens, D model
// width, H heads, E experts, K chosen experts a token, V vocabulary, S sequence length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring {

// An ordered queue of work; made and owned by its backend.
class Stream {
 public:
  virtual ~Stream() = default;
};

// A block of memory that tensors may lie in; made by a backend, given back to the system at its end.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual std::byte* data() const = 0;  // aligned to 64 bytes; null if the size is 0
  virtual int64_t size_bytes() const = 0;
};

// What a backend counted since the last reset; matrix products and the attention core only.
struct WorkCounters {
  int64_t gemm_flops = 0;       // dense and grouped products, 2*M*N*K each; grouped ones at counted_rows()
  int64_t fp8_gemm_flops = 0;   // those of them whose operands are both FP8
  int64_t attention_flops = 0;  // causal: half of the full rectangle; backward twice the forward (scores that are
                                // computed again are not counted)
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  // False for types that this backend has no code for; passing such a tensor to an operation aborts.
  virtual bool Supports(DType dtype) const = 0;

  // --- memory and streams -------------------------------------------------------------------------------------------
  // One block, zeroed, for an arena; null if there is not so much, errno then says why where it can.
  virtual std::unique_ptr<Memory> Allocate(int64_t size_bytes);
  // Whether the host may read and write that memory itself.
  virtual bool memory_is_hosts() const { return true; }
  virtual std::unique_ptr<Stream> MakeStream() = 0;
  virtual void Synchronize(Stream& stream) = 0;
  void Zero(Stream& stream, View x);
  // y = x, converting between f32 and bf16 (to nearest even). Shapes equal.
  void Copy(Stream& stream, ConstView x, View y);
  void CopyToHost(Stream& stream, ConstView x, void* host);     // x contiguous; complete after Synchronize
  void CopyFromHost(Stream& stream, const void* host, View x);  // host bytes may be reused after Synchronize

  // --- elementwise --------------------------------------------------------------------------------------------------
  // y = a + b, added in f32, rounded once. Any may alias.
  void Add(Stream& stream, ConstView a, ConstView b, View y);

  // --- number formats -----------------------------------------------------------------------------------------------
  void Quantize(Stream& stream, const QuantizeArgs& args);
  // y = code * scale, rounded to act. x [R, C] in tiles of one row, or of a stack (`stack` as in QuantizeArgs).
  // `offsets` i32 [1, groups+1] or empty: only rows below the last offset exist.
  void Dequantize(Stream& stream, Operand x, View y, int64_t stack = 1, ConstView offsets = {});

  // --- matrix products ----------------------------------------------------------------------------------------------
  // kNT: c[M,N] = a[M,K] b[N,K]^T (forward).   kNN: c[M,N] = a[M,K] b[K,N] (input gradient).
  // kTN: c[M,N] = a[K,M]^T b[K,N] (weight gradient). FP32 accumulation in an order fixed by K alone; c is act or f32.
  // accumulate: c += (c must be f32), after the whole sum over K. Both operands are act, or both e4m3 or e5m2 with
  // scales; then `how` says how they are summed.
  void Gemm(Stream& stream, GemmLayout layout, Operand a, Operand b, View c, bool accumulate = false,
            const Fp8Accumulation& how = {});
  // Expert e multiplies its segment of rows with its own matrix of the stack.
  // kNT: c[R,N] = a[R,K] b_e[N,K]^T, b [E*N, K].   kNN: c[R,N] = a[R,K] b_e[K,N], b [E*K, N].
  // kTN: c_e[M,N] (+)= a[R_e,M]^T b[R_e,N], c [E*M, N]; without accumulate an empty expert's c_e is set to zero.
  // FP8: tokens in tiles of one row (kNT, kNN) or, where tokens are contracted (kTN), as QuantizeArgs::segments; the
  // stack b as QuantizeArgs::stack.
  void GroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b, View c,
                   bool accumulate = false, const Fp8Accumulation& how = {});

  // --- norms, positions, attention, activation ----------------------------------------------------------------------
  void RmsNorm(Stream& stream, const RmsNormArgs& args);
  void RmsNormBackwardInput(Stream& stream, const RmsNormBackwardInputArgs& args);
  void RmsNormBackwardWeight(Stream& stream, const RmsNormBackwardWeightArgs& args);
  void Rope(Stream& stream, const RopeArgs& args);
  void AttentionForward(Stream& stream, const AttentionArgs& args, View out, View log_sum_exp, View workspace);
  void AttentionBackward(Stream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads, View workspace);
  virtual int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) const = 0;
  void SwiGlu(Stream& stream, const SwiGluArgs& args, MutableOperand y);
  void SwiGluBackward(Stream& stream, const SwiGluArgs& args, ConstView dy, View d_gate_up, View d_row_weight);

  // --- router and exchange of tokens --------------------------------------------------------------------------------
  void Gate(Stream& stream, const GateArgs& args, const GateResult& result);
  void GateBackward(Stream& stream, const GateArgs& args, const GateBackwardArgs& grads);
  void SequenceBalance(Stream& stream, const SequenceBalanceArgs& args);
  void PlanDispatch(Stream& stream, const PlanDispatchArgs& args);
  void GatherRows(Stream& stream, Operand x, ConstView row_token, ConstView offsets, MutableOperand y);
  void GatherChosen(Stream& stream, ConstView chosen_values, ConstView row_slot, ConstView offsets, View row_values);
  void ScatterChosen(Stream& stream, ConstView row_values, ConstView slot_row, View chosen_values);
  void CombineRows(Stream& stream, const CombineArgs& args, View out);

  // --- ends of the model --------------------------------------------------------------------------------------------
  void Embedding(Stream& stream, ConstView ids, ConstView table, View x);
  void EmbeddingBackward(Stream& stream, ConstView ids, ConstView dx, View d_table);
  void CrossEntropy(Stream& stream, const CrossEntropyArgs& args);
  void SumRows(Stream& stream, ConstView x, View sum);

  // --- optimizer ----------------------------------------------------------------------------------------------------
  void SquaredNorm(Stream& stream, ConstView x, View block_sums);
  void AdamW(Stream& stream, const AdamWArgs& args);
  void Ema(Stream& stream, ConstView weights, double decay, View ema);

  const WorkCounters& work() const { return work_; }
  void ResetWork() { work_ = {}; }

 private:
  virtual void DoZero(Stream& stream, View x) = 0;
  virtual void DoCopy(Stream& stream, ConstView x, View y) = 0;
  virtual void DoCopyToHost(Stream& stream, ConstView x, void* host) = 0;
  virtual void DoCopyFromHost(Stream& stream, const void* host, View x) = 0;
  virtual void DoAdd(Stream& stream, ConstView a, ConstView b, View y) = 0;
  virtual void DoQuantize(Stream& stream, const QuantizeArgs& args) = 0;
  virtual void DoDequantize(Stream& stream, Operand x, View y, int64_t stack, ConstView offsets) = 0;
  virtual void DoGemm(Stream& stream, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
                      const Fp8Accumulation& how) = 0;
  virtual void DoGroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b, View c,
                             bool accumulate, const Fp8Accumulation& how) = 0;
  virtual void DoRmsNorm(Stream& stream, const RmsNormArgs& args) = 0;
  virtual void DoRmsNormBackwardInput(Stream& stream, const RmsNormBackwardInputArgs& args) = 0;
  virtual void DoRmsNormBackwardWeight(Stream& stream, const RmsNormBackwardWeightArgs& args) = 0;
  virtual void DoRope(Stream& stream, const RopeArgs& args) = 0;
  virtual void DoAttentionForward(Stream& stream, const AttentionArgs& args, View out, View log_sum_exp,
                                  View workspace) = 0;
  virtual void DoAttentionBackward(Stream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                                   View workspace) = 0;
  virtual void DoSwiGlu(Stream& stream, const SwiGluArgs& args, MutableOperand y) = 0;
  virtual void DoSwiGluBackward(Stream& stream, const SwiGluArgs& args, ConstView dy, View d_gate_up,
                                View d_row_weight) = 0;
  virtual void DoGate(Stream& stream, const GateArgs& args, const GateResult& result) = 0;
  virtual void DoGateBackward(Stream& stream, const GateArgs& args, const GateBackwardArgs& grads) = 0;
  virtual void DoSequenceBalance(Stream& stream, const SequenceBalanceArgs& args) = 0;
  virtual void DoPlanDispatch(Stream& stream, const PlanDispatchArgs& args) = 0;
  virtual void DoGatherRows(Stream& stream, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) = 0;
  virtual void DoGatherChosen(Stream& stream, ConstView chosen_values, ConstView row_slot, ConstView offsets,
                              View row_values) = 0;
  virtual void DoScatterChosen(Stream& stream, ConstView row_values, ConstView slot_row, View chosen_values) = 0;
  virtual void DoCombineRows(Stream& stream, const CombineArgs& args, View out) = 0;
  virtual void DoEmbedding(Stream& stream, ConstView ids, ConstView table, View x) = 0;
  virtual void DoEmbeddingBackward(Stream& stream, ConstView ids, ConstView dx, View d_table) = 0;
  virtual void DoCrossEntropy(Stream& stream, const CrossEntropyArgs& args) = 0;
  virtual void DoSumRows(Stream& stream, ConstView x, View sum) = 0;
  virtual void DoSquaredNorm(Stream& stream, ConstView x, View block_sums) = 0;
  virtual void DoAdamW(Stream& stream, const AdamWArgs& args) = 0;
  virtual void DoEma(Stream& stream, ConstView weights, double decay, View ema) = 0;

  void CountGemm(const Operand& a, int64_t flops);

  WorkCounters work_;
};

}  // namespace shoestring
