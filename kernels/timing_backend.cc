// Forwarding with a stopwatch.
#include "kernels/timing_backend.h"

namespace shoestring {

const char* Name(TimeCategory category) {
  switch (category) {
    case TimeCategory::kGemm: return "gemm";
    case TimeCategory::kGroupedGemm: return "grouped_gemm";
    case TimeCategory::kAttention: return "attention";
    case TimeCategory::kNorm: return "norm";
    case TimeCategory::kActivation: return "activation";
    case TimeCategory::kRouting: return "routing";
    case TimeCategory::kLoss: return "loss";
    case TimeCategory::kOptimizer: return "optimizer";
    case TimeCategory::kCopy: return "copy";
    case TimeCategory::kQuantise: return "quantise";
  }
  return "?";
}

double TimeBreakdown::total_s() const {
  double total = 0.0;
  for (const double s : seconds) total += s;
  return total;
}

TimeBreakdown TimeBreakdown::Since(const TimeBreakdown& earlier) const {
  TimeBreakdown difference = *this;
  for (int i = 0; i < kTimeCategories; ++i) {
    difference.seconds[i] -= earlier.seconds[i];
    difference.calls[i] -= earlier.calls[i];
  }
  return difference;
}

// Adds the time from its construction to its end.
class TimingBackend::Timed {
 public:
  Timed(TimingBackend& backend, Stream& stream, TimeCategory category)
      : backend_(backend),
        stream_(stream),
        index_(static_cast<int>(category)),
        start_(backend.clock_.MonotonicNanos()) {}
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;
  ~Timed() {
    if (backend_.waits_) backend_.inner_.Synchronize(stream_);
    backend_.times_.seconds[index_] += static_cast<double>(backend_.clock_.MonotonicNanos() - start_) * 1e-9;
    ++backend_.times_.calls[index_];
  }

 private:
  TimingBackend& backend_;
  Stream& stream_;
  const int index_;
  const int64_t start_;
};

void TimingBackend::DoZero(Stream& stream, View x) {
  const Timed timed(*this, stream, TimeCategory::kCopy);
  inner_.Zero(stream, x);
}

void TimingBackend::DoCopy(Stream& stream, ConstView x, View y) {
  const Timed timed(*this, stream, TimeCategory::kCopy);
  inner_.Copy(stream, x, y);
}

void TimingBackend::DoCopyToHost(Stream& stream, ConstView x, void* host) {
  const Timed timed(*this, stream, TimeCategory::kCopy);
  inner_.CopyToHost(stream, x, host);
}

void TimingBackend::DoCopyFromHost(Stream& stream, const void* host, View x) {
  const Timed timed(*this, stream, TimeCategory::kCopy);
  inner_.CopyFromHost(stream, host, x);
}

void TimingBackend::DoAdd(Stream& stream, ConstView a, ConstView b, View y) {
  const Timed timed(*this, stream, TimeCategory::kCopy);
  inner_.Add(stream, a, b, y);
}

void TimingBackend::DoQuantize(Stream& stream, const QuantizeArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kQuantise);
  inner_.Quantize(stream, args);
}

void TimingBackend::DoDequantize(Stream& stream, Operand x, View y, int64_t stack, ConstView offsets) {
  const Timed timed(*this, stream, TimeCategory::kQuantise);
  inner_.Dequantize(stream, x, y, stack, offsets);
}

void TimingBackend::DoGemm(Stream& stream, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
                           const Fp8Accumulation& how) {
  const Timed timed(*this, stream, TimeCategory::kGemm);
  inner_.Gemm(stream, layout, a, b, c, accumulate, how);
}

void TimingBackend::DoGroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b,
                                  View c, bool accumulate, const Fp8Accumulation& how) {
  const Timed timed(*this, stream, TimeCategory::kGroupedGemm);
  inner_.GroupedGemm(stream, layout, segments, a, b, c, accumulate, how);
}

void TimingBackend::DoRmsNorm(Stream& stream, const RmsNormArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kNorm);
  inner_.RmsNorm(stream, args);
}

void TimingBackend::DoRmsNormBackwardInput(Stream& stream, const RmsNormBackwardInputArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kNorm);
  inner_.RmsNormBackwardInput(stream, args);
}

void TimingBackend::DoRmsNormBackwardWeight(Stream& stream, const RmsNormBackwardWeightArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kNorm);
  inner_.RmsNormBackwardWeight(stream, args);
}

void TimingBackend::DoRope(Stream& stream, const RopeArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kNorm);
  inner_.Rope(stream, args);
}

void TimingBackend::DoAttentionForward(Stream& stream, const AttentionArgs& args, View out, View log_sum_exp,
                                       View workspace) {
  const Timed timed(*this, stream, TimeCategory::kAttention);
  inner_.AttentionForward(stream, args, out, log_sum_exp, workspace);
}

void TimingBackend::DoAttentionBackward(Stream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                                        View workspace) {
  const Timed timed(*this, stream, TimeCategory::kAttention);
  inner_.AttentionBackward(stream, args, grads, workspace);
}

void TimingBackend::DoSwiGlu(Stream& stream, const SwiGluArgs& args, MutableOperand y) {
  const Timed timed(*this, stream, TimeCategory::kActivation);
  inner_.SwiGlu(stream, args, y);
}

void TimingBackend::DoSwiGluBackward(Stream& stream, const SwiGluArgs& args, ConstView dy, View d_gate_up,
                                     View d_row_weight) {
  const Timed timed(*this, stream, TimeCategory::kActivation);
  inner_.SwiGluBackward(stream, args, dy, d_gate_up, d_row_weight);
}

void TimingBackend::DoGate(Stream& stream, const GateArgs& args, const GateResult& result) {
  const Timed timed(*this, stream, TimeCategory::kRouting);
  inner_.Gate(stream, args, result);
}

void TimingBackend::DoGateBackward(Stream& stream, const GateArgs& args, const GateBackwardArgs& grads) {
  const Timed timed(*this, stream, TimeCategory::kRouting);
  inner_.GateBackward(stream, args, grads);
}

void TimingBackend::DoSequenceBalance(Stream& stream, const SequenceBalanceArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kRouting);
  inner_.SequenceBalance(stream, args);
}

void TimingBackend::DoPlanDispatch(Stream& stream, const PlanDispatchArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kRouting);
  inner_.PlanDispatch(stream, args);
}

void TimingBackend::DoGatherRows(Stream& stream, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) {
  const Timed timed(*this, stream, TimeCategory::kRouting);
  inner_.GatherRows(stream, x, row_token, offsets, y);
}

void TimingBackend::DoGatherChosen(Stream& stream, ConstView chosen_values, ConstView row_slot, ConstView offsets,
                                   View row_values) {
  const Timed timed(*this, stream, TimeCategory::kRouting);
  inner_.GatherChosen(stream, chosen_values, row_slot, offsets, row_values);
}

void TimingBackend::DoScatterChosen(Stream& stream, ConstView row_values, ConstView slot_row, View chosen_values) {
  const Timed timed(*this, stream, TimeCategory::kRouting);
  inner_.ScatterChosen(stream, row_values, slot_row, chosen_values);
}

void TimingBackend::DoCombineRows(Stream& stream, const CombineArgs& args, View out) {
  const Timed timed(*this, stream, TimeCategory::kRouting);
  inner_.CombineRows(stream, args, out);
}

void TimingBackend::DoEmbedding(Stream& stream, ConstView ids, ConstView table, View x) {
  const Timed timed(*this, stream, TimeCategory::kLoss);
  inner_.Embedding(stream, ids, table, x);
}

void TimingBackend::DoEmbeddingBackward(Stream& stream, ConstView ids, ConstView dx, View d_table) {
  const Timed timed(*this, stream, TimeCategory::kLoss);
  inner_.EmbeddingBackward(stream, ids, dx, d_table);
}

void TimingBackend::DoCrossEntropy(Stream& stream, const CrossEntropyArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kLoss);
  inner_.CrossEntropy(stream, args);
}

void TimingBackend::DoSumRows(Stream& stream, ConstView x, View sum) {
  const Timed timed(*this, stream, TimeCategory::kLoss);
  inner_.SumRows(stream, x, sum);
}

void TimingBackend::DoSquaredNorm(Stream& stream, ConstView x, View block_sums) {
  const Timed timed(*this, stream, TimeCategory::kOptimizer);
  inner_.SquaredNorm(stream, x, block_sums);
}

void TimingBackend::DoAdamW(Stream& stream, const AdamWArgs& args) {
  const Timed timed(*this, stream, TimeCategory::kOptimizer);
  inner_.AdamW(stream, args);
}

void TimingBackend::DoEma(Stream& stream, ConstView weights, double decay, View ema) {
  const Timed timed(*this, stream, TimeCategory::kOptimizer);
  inner_.Ema(stream, weights, decay, ema);
}

}  // namespace shoestring
