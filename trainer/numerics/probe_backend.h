// A backend that looks at another one's work: names each tensor by the weight it comes from, hands it to a sink, and
// counts what quantisers lose.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "trainer/numerics/tensor_log.h"
#include "trainer/params.h"

namespace shoestring {

// What the pass is doing; the same operation means another tensor in each.
enum class ProbePhase { kWeights, kForward, kInputGradient, kWeightGradient };

// One operand that was quantised, all its pieces together.
struct MeasuredQuantiser {
  std::string name;  // "layers.3.mlp.experts.down_proj.x": of the product that reads it; or what is kept or sent
  int layer = 0;
  DType format = DType::kE4M3;
  Tile tile;
  bool power_of_two = false;
  QuantiserLoss loss;
};

// The experts that tokens chose, gate after gate.
struct Routing {
  std::vector<std::vector<int32_t>> experts;  // [gate][T * K], ascending for each token
};

// Computes exactly what `inner` computes, which must be a backend of the host's memory that has finished when a call
// returns; unless a routing is forced. Names follow the parameter table: "<weight>.out", ".dx", ".x", ".dy".
// `inner` and `sink` must outlive this object; streams are those of `inner`.
class ProbeBackend final : public Backend {
 public:
  // Layers of the main model, and MTP modules, which are numbered after them.
  ProbeBackend(Backend& inner, TensorSink& sink, int main_layers, int modules)
      : inner_(inner), sink_(sink), main_layers_(main_layers), layers_(main_layers + modules) {}

  // What layers read of a parameter, and where one use of it puts its gradient (may be empty).
  void NameWeight(const Parameter& parameter, const Operand& weight);
  void NameGradient(const Parameter& parameter, ConstView gradient);
  // What the gradient of a parameter is called.
  TensorName GradientName(const Parameter& parameter) const;
  void Begin(ProbePhase phase) { phase_ = phase; }

  // `forced`: tokens go to these experts, with the gate weights of their own scores, so that rows of experts are those
  // of the reference; null: tokens go where they choose. `compare`: what choices are compared with, forced or not; if
  // there is one and it is not forced, rows of experts are not looked at. Both must outlive the pass.
  void SetRouting(const Routing* forced, const Routing* compare);

  const Routing& routing() const { return routing_; }  // what tokens would have chosen
  int64_t routed_tokens() const { return routed_tokens_; }
  int64_t differing_tokens() const { return differing_tokens_; }  // whose chosen experts are not those compared with
  std::vector<MeasuredQuantiser> quantisers() const;

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
  struct Stem {
    std::string name;  // "layers.3.self_attn.o_proj": the parameter without "model." and ".weight"
    int layer = 0;
  };
  struct Event {
    std::string name;      // of the product that read it first; empty as long as none has
    std::string fallback;  // what was quantised
    MeasuredQuantiser what;
  };

  void DoZero(Stream& stream, View x) override { inner_.Zero(stream, x); }
  void DoCopy(Stream& stream, ConstView x, View y) override { inner_.Copy(stream, x, y); }
  void DoCopyToHost(Stream& stream, ConstView x, void* host) override { inner_.CopyToHost(stream, x, host); }
  void DoCopyFromHost(Stream& stream, const void* host, View x) override { inner_.CopyFromHost(stream, host, x); }
  void DoAdd(Stream& stream, ConstView a, ConstView b, View y) override;
  void DoQuantize(Stream& stream, const QuantizeArgs& args) override;
  void DoDequantize(Stream& stream, Operand x, View y, int64_t stack, ConstView offsets) override;
  void DoGemm(Stream& stream, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
              const Fp8Accumulation& how) override;
  void DoGroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b, View c,
                     bool accumulate, const Fp8Accumulation& how) override;
  void DoRmsNorm(Stream& stream, const RmsNormArgs& args) override;
  void DoRmsNormBackwardInput(Stream& stream, const RmsNormBackwardInputArgs& args) override;
  void DoRmsNormBackwardWeight(Stream& stream, const RmsNormBackwardWeightArgs& args) override {
    inner_.RmsNormBackwardWeight(stream, args);
  }
  void DoRope(Stream& stream, const RopeArgs& args) override { inner_.Rope(stream, args); }
  void DoAttentionForward(Stream& stream, const AttentionArgs& args, View out, View log_sum_exp,
                          View workspace) override;
  void DoAttentionBackward(Stream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                           View workspace) override;
  void DoSwiGlu(Stream& stream, const SwiGluArgs& args, MutableOperand y) override;
  void DoSwiGluBackward(Stream& stream, const SwiGluArgs& args, ConstView dy, View d_gate_up,
                        View d_row_weight) override;
  void DoGate(Stream& stream, const GateArgs& args, const GateResult& result) override;
  void DoGateBackward(Stream& stream, const GateArgs& args, const GateBackwardArgs& grads) override;
  void DoSequenceBalance(Stream& stream, const SequenceBalanceArgs& args) override {
    inner_.SequenceBalance(stream, args);
  }
  void DoPlanDispatch(Stream& stream, const PlanDispatchArgs& args) override;
  void DoGatherRows(Stream& stream, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) override;
  void DoGatherChosen(Stream& stream, ConstView chosen_values, ConstView row_slot, ConstView offsets,
                      View row_values) override {
    inner_.GatherChosen(stream, chosen_values, row_slot, offsets, row_values);
  }
  void DoScatterChosen(Stream& stream, ConstView row_values, ConstView slot_row, View chosen_values) override {
    inner_.ScatterChosen(stream, row_values, slot_row, chosen_values);
  }
  void DoCombineRows(Stream& stream, const CombineArgs& args, View out) override;
  void DoEmbedding(Stream& stream, ConstView ids, ConstView table, View x) override;
  void DoEmbeddingBackward(Stream& stream, ConstView ids, ConstView dx, View d_table) override {
    inner_.EmbeddingBackward(stream, ids, dx, d_table);
  }
  void DoCrossEntropy(Stream& stream, const CrossEntropyArgs& args) override;
  void DoSumRows(Stream& stream, ConstView x, View sum) override { inner_.SumRows(stream, x, sum); }
  void DoSquaredNorm(Stream& stream, ConstView x, View block_sums) override {
    inner_.SquaredNorm(stream, x, block_sums);
  }
  void DoAdamW(Stream& stream, const AdamWArgs& args) override { inner_.AdamW(stream, args); }
  void DoEma(Stream& stream, ConstView weights, double decay, View ema) override {
    inner_.Ema(stream, weights, decay, ema);
  }

  Stem StemOf(const Parameter& parameter) const;
  // Forward or input gradient, and, for rows of experts, a routing that makes them comparable.
  bool looks(bool of_experts) const;
  void Record(const Stem& stem, const char* role, TensorGroup group, const Operand& x, bool of_experts = false);
  void AfterProduct(GemmLayout layout, const Operand& a, const Operand& b, View c, bool of_experts);
  // Of the product that made `gate_up`: backward makes SwiGLU anew, long after it.
  Stem SwiGluOf(ConstView gate_up) const;
  // Names the quantised operand after what reads it, if nothing has read it before.
  void Consumed(const Operand& x, const Stem& stem, const char* role);
  // Memory of this object for what the operation under way would quantise as it makes it; until the next call.
  View Unfused(DType dtype, int64_t rows, int64_t cols);
  void CompareChoice(const GateResult& result);
  void ForceChoice(const GateArgs& args, const GateResult& result);

  Backend& inner_;
  TensorSink& sink_;
  const int main_layers_;
  const int layers_;
  ProbePhase phase_ = ProbePhase::kWeights;
  std::map<const std::byte*, Stem> weights_;
  std::map<const std::byte*, Stem> gradients_;
  std::map<const std::byte*, Stem> made_by_;  // what stands at an address now: whoever wrote there last
  Stem last_product_;
  Stem last_norm_;
  int embeddings_ = 0;

  const Routing* forced_ = nullptr;
  const Routing* compare_ = nullptr;
  Routing routing_;
  int64_t routed_tokens_ = 0;
  int64_t differing_tokens_ = 0;

  std::vector<Event> events_;
  std::map<const std::byte*, size_t> quantised_at_;  // the event that wrote the codes at an address
  std::vector<std::byte> unfused_;
};

}  // namespace shoestring
