// The backend that measures: the public checks and counters of every backend, and bodies that do nothing.
#include "kernels/shape_backend.h"

#include <cstring>

namespace shoestring {
namespace {

class ShapeStream : public Stream {};

class ShapeBackend : public Backend {
 public:
  explicit ShapeBackend(const Backend& like) : like_(like) {}

  const char* name() const override { return "shape"; }
  bool Supports(DType dtype) const override { return like_.Supports(dtype); }
  std::unique_ptr<Stream> MakeStream() override { return std::make_unique<ShapeStream>(); }
  void Synchronize(Stream&) override {}
  int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) const override {
    return like_.AttentionWorkspaceBytes(shape, backward);
  }

 private:
  void DoZero(Stream&, View) override {}
  void DoCopy(Stream&, ConstView, View) override {}
  // Host memory is real even here: whoever reads a loss or a count from it finds zeros, never rubbish.
  void DoCopyToHost(Stream&, ConstView x, void* host) override { std::memset(host, 0, x.bytes()); }
  void DoCopyFromHost(Stream&, const void*, View) override {}
  void DoAdd(Stream&, ConstView, ConstView, View) override {}
  void DoQuantize(Stream&, const QuantizeArgs&) override {}
  void DoDequantize(Stream&, Operand, View, int64_t, ConstView) override {}
  void DoGemm(Stream&, GemmLayout, Operand, Operand, View, bool, const Fp8Accumulation&) override {}
  void DoGroupedGemm(Stream&, GemmLayout, const Segments&, Operand, Operand, View, bool,
                     const Fp8Accumulation&) override {}
  void DoRmsNorm(Stream&, const RmsNormArgs&) override {}
  void DoRmsNormBackwardInput(Stream&, const RmsNormBackwardInputArgs&) override {}
  void DoRmsNormBackwardWeight(Stream&, const RmsNormBackwardWeightArgs&) override {}
  void DoRope(Stream&, const RopeArgs&) override {}
  void DoAttentionForward(Stream&, const AttentionArgs&, View, View, View) override {}
  void DoAttentionBackward(Stream&, const AttentionArgs&, const AttentionBackwardArgs&, View) override {}
  void DoSwiGlu(Stream&, const SwiGluArgs&, MutableOperand) override {}
  void DoSwiGluBackward(Stream&, const SwiGluArgs&, ConstView, View, View) override {}
  void DoGate(Stream&, const GateArgs&, const GateResult&) override {}
  void DoGateBackward(Stream&, const GateArgs&, const GateBackwardArgs&) override {}
  void DoSequenceBalance(Stream&, const SequenceBalanceArgs&) override {}
  void DoPlanDispatch(Stream&, const PlanDispatchArgs&) override {}
  void DoGatherRows(Stream&, Operand, ConstView, ConstView, MutableOperand) override {}
  void DoGatherChosen(Stream&, ConstView, ConstView, ConstView, View) override {}
  void DoScatterChosen(Stream&, ConstView, ConstView, View) override {}
  void DoCombineRows(Stream&, const CombineArgs&, View) override {}
  void DoEmbedding(Stream&, ConstView, ConstView, View) override {}
  void DoEmbeddingBackward(Stream&, ConstView, ConstView, View) override {}
  void DoCrossEntropy(Stream&, const CrossEntropyArgs&) override {}
  void DoSumRows(Stream&, ConstView, View) override {}
  void DoSquaredNorm(Stream&, ConstView, View) override {}
  void DoAdamW(Stream&, const AdamWArgs&) override {}
  void DoEma(Stream&, ConstView, double, View) override {}

  const Backend& like_;
};

}  // namespace

std::unique_ptr<Backend> MakeShapeBackend(const Backend& like) { return std::make_unique<ShapeBackend>(like); }

}  // namespace shoestring
