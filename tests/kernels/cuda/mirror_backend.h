// A backend for operands in the host's memory that computes with another one in that one's memory.
#pragma once

#include <memory>

#include "kernels/backend.h"

namespace shoestring {

// `inner` must outlive this object; streams are those of `inner`. Results are there when an operation returns.
class MirrorBackend final : public Backend {
 public:
  explicit MirrorBackend(Backend& inner) : inner_(inner) {}

  const char* name() const override { return inner_.name(); }
  bool Supports(DType dtype) const override { return inner_.Supports(dtype); }
  std::unique_ptr<Stream> MakeStream() override { return inner_.MakeStream(); }
  void Synchronize(Stream& stream) override { inner_.Synchronize(stream); }
  int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) const override {
    return inner_.AttentionWorkspaceBytes(shape, backward);
  }

 private:
  void DoZero(Stream& stream, View x) override;
  void DoCopy(Stream& stream, ConstView x, View y) override;
  void DoCopyToHost(Stream& stream, ConstView x, void* host) override;
  void DoCopyFromHost(Stream& stream, const void* host, View x) override;
  void DoAdd(Stream& stream, ConstView a, ConstView b, View y) override;
  void DoQuantize(Stream& stream, const QuantizeArgs& args) override;
  void DoDequantize(Stream& stream, Operand x, View y, int64_t stack, ConstView offsets) override;
  void DoGemm(Stream& stream, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
              const Fp8Accumulation& how) override;
  void DoGroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b, View c,
                     bool accumulate, const Fp8Accumulation& how) override;
  void DoRmsNorm(Stream& stream, const RmsNormArgs& args) override;
  void DoRmsNormBackwardInput(Stream& stream, const RmsNormBackwardInputArgs& args) override;
  void DoRmsNormBackwardWeight(Stream& stream, const RmsNormBackwardWeightArgs& args) override;
  void DoRope(Stream& stream, const RopeArgs& args) override;
  void DoAttentionForward(Stream& stream, const AttentionArgs& args, View out, View log_sum_exp,
                          View workspace) override;
  void DoAttentionBackward(Stream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                           View workspace) override;
  void DoSwiGlu(Stream& stream, const SwiGluArgs& args, MutableOperand y) override;
  void DoSwiGluBackward(Stream& stream, const SwiGluArgs& args, ConstView dy, View d_gate_up,
                        View d_row_weight) override;
  void DoGate(Stream& stream, const GateArgs& args, const GateResult& result) override;
  void DoGateBackward(Stream& stream, const GateArgs& args, const GateBackwardArgs& grads) override;
  void DoSequenceBalance(Stream& stream, const SequenceBalanceArgs& args) override;
  void DoPlanDispatch(Stream& stream, const PlanDispatchArgs& args) override;
  void DoGatherRows(Stream& stream, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) override;
  void DoGatherChosen(Stream& stream, ConstView chosen_values, ConstView row_slot, ConstView offsets,
                      View row_values) override;
  void DoScatterChosen(Stream& stream, ConstView row_values, ConstView slot_row, View chosen_values) override;
  void DoCombineRows(Stream& stream, const CombineArgs& args, View out) override;
  void DoEmbedding(Stream& stream, ConstView ids, ConstView table, View x) override;
  void DoEmbeddingBackward(Stream& stream, ConstView ids, ConstView dx, View d_table) override;
  void DoCrossEntropy(Stream& stream, const CrossEntropyArgs& args) override;
  void DoSumRows(Stream& stream, ConstView x, View sum) override;
  void DoSquaredNorm(Stream& stream, ConstView x, View block_sums) override;
  void DoAdamW(Stream& stream, const AdamWArgs& args) override;
  void DoEma(Stream& stream, ConstView weights, double decay, View ema) override;

  Backend& inner_;
};

}  // namespace shoestring
