// A backend that times another one: every operation is forwarded, and its time added to the category it belongs to.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"
#include "kernels/backend.h"

namespace shoestring {

// What a step's time is spent on. One operation belongs to one category.
enum class TimeCategory {
  kGemm,         // Gemm
  kGroupedGemm,  // GroupedGemm
  kAttention,    // the attention core, forward and backward
  kNorm,         // RMSNorm and rotary positions
  kActivation,   // SwiGLU
  kRouting,      // gate, balance loss, dispatch, combine
  kLoss,         // embedding and cross-entropy
  kOptimizer,    // gradient norm, AdamW, moving average
  kCopy,         // copies, zeroing, additions
  kQuantise,     // number formats, where not fused with another operation
};
constexpr int kTimeCategories = static_cast<int>(TimeCategory::kQuantise) + 1;

// Short name for keys and tables: "gemm", "grouped_gemm", "attention", ...
const char* Name(TimeCategory category);

struct TimeBreakdown {
  std::array<double, kTimeCategories> seconds{};
  std::array<int64_t, kTimeCategories> calls{};

  double operator[](TimeCategory category) const { return seconds[static_cast<int>(category)]; }
  double total_s() const;
  // What was spent after `earlier`, a reading of the same backend.
  TimeBreakdown Since(const TimeBreakdown& earlier) const;
};

// Computes exactly what `inner` computes; counts the same work. Times are those of the calling thread until the call
// returns: of a backend that has finished by then (the CPU's), or that is waited for. Costs two readings of the clock a
// call and allocates nothing. `inner` and `clock` must outlive this object; streams are those of `inner`.
// Who wants to look at one operation of another backend derives from it and overrides that one.
class TimingBackend : public Backend {
 public:
  TimingBackend(Backend& inner, Clock& clock) : inner_(inner), clock_(clock) {}

  const TimeBreakdown& times() const { return times_; }
  void ResetTimes() { times_ = {}; }
  // Whether each call waits until its stream has done it: then times are the device's too, and nothing overlaps. Off at
  // first.
  void set_waits(bool waits) { waits_ = waits; }

  const char* name() const override { return inner_.name(); }
  bool Supports(DType dtype) const override { return inner_.Supports(dtype); }
  std::unique_ptr<Memory> Allocate(int64_t size_bytes) override { return inner_.Allocate(size_bytes); }
  bool memory_is_hosts() const override { return inner_.memory_is_hosts(); }
  std::unique_ptr<Stream> MakeStream() override { return inner_.MakeStream(); }
  void Synchronize(Stream& stream) override { inner_.Synchronize(stream); }
  int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) const override {
    return inner_.AttentionWorkspaceBytes(shape, backward);
  }

 private:
  class Timed;

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
  Clock& clock_;
  bool waits_ = false;
  TimeBreakdown times_;
};

}  // namespace shoestring
