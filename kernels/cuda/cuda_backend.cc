// The CUDA backend's class: owns the device, the handles of libraries; hands every operation to its body.
#include "kernels/cuda/cuda_backend.h"

#include <cerrno>
#include <utility>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cuda_operations.h"
#include "kernels/cuda/gemm.h"

namespace shoestring {
namespace {

class DeviceMemory final : public Memory {
 public:
  DeviceMemory(DeviceBytes bytes, int64_t size_bytes) : bytes_(std::move(bytes)), size_bytes_(size_bytes) {}
  std::byte* data() const override { return static_cast<std::byte*>(bytes_.get()); }
  int64_t size_bytes() const override { return size_bytes_; }

 private:
  DeviceBytes bytes_;
  const int64_t size_bytes_;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(CudaContext context) : context_(std::move(context)), gemm_(context_), attention_(context_) {}

  const char* name() const override { return "cuda"; }
  bool Supports(DType) const override { return true; }
  std::unique_ptr<Memory> Allocate(int64_t size_bytes) override {
    DeviceBytes bytes = size_bytes > 0 ? TakeDeviceBytes(size_bytes) : DeviceBytes();
    if (size_bytes > 0 && !bytes) {
      errno = ENOMEM;
      return nullptr;
    }
    if (size_bytes > 0) {
      CUDA_CHECK(cudaMemset(bytes.get(), 0, static_cast<size_t>(size_bytes)));
      CUDA_CHECK(cudaDeviceSynchronize());  // our streams do not wait for the one that zeroes
    }
    return std::make_unique<DeviceMemory>(std::move(bytes), size_bytes);
  }
  bool memory_is_hosts() const override { return false; }
  std::unique_ptr<Stream> MakeStream() override { return std::make_unique<CudaStream>(context_); }
  void Synchronize(Stream& stream) override { CudaStreamOf(stream).Synchronize(); }
  int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) const override {
    return attention_.WorkspaceBytes(shape, backward);
  }

 private:
  void DoZero(Stream& s, View x) override { CudaZero(CudaStreamOf(s), x); }
  void DoCopy(Stream& s, ConstView x, View y) override { CudaCopy(CudaStreamOf(s), x, y); }
  void DoCopyToHost(Stream& s, ConstView x, void* host) override {
    CudaStreamOf(s).CopyToHost(x.data, host, x.bytes());
  }
  void DoCopyFromHost(Stream& s, const void* host, View x) override {
    CudaStreamOf(s).CopyFromHost(host, x.data, x.bytes());
  }
  void DoAdd(Stream& s, ConstView a, ConstView b, View y) override { CudaAdd(CudaStreamOf(s), a, b, y); }
  void DoQuantize(Stream& s, const QuantizeArgs& args) override { CudaQuantize(CudaStreamOf(s), args); }
  void DoDequantize(Stream& s, Operand x, View y, int64_t stack, ConstView offsets) override {
    CudaDequantize(CudaStreamOf(s), x, y, stack, offsets);
  }
  void DoGemm(Stream& s, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
              const Fp8Accumulation& how) override {
    gemm_.Run(CudaStreamOf(s), layout, a, b, c, accumulate, how);
  }
  void DoGroupedGemm(Stream& s, GemmLayout layout, const Segments& segments, Operand a, Operand b, View c,
                     bool accumulate, const Fp8Accumulation& how) override {
    gemm_.RunGrouped(CudaStreamOf(s), layout, segments, a, b, c, accumulate, how);
  }
  void DoRmsNorm(Stream& s, const RmsNormArgs& args) override { CudaRmsNorm(CudaStreamOf(s), args); }
  void DoRmsNormBackwardInput(Stream& s, const RmsNormBackwardInputArgs& args) override {
    CudaRmsNormBackwardInput(CudaStreamOf(s), args);
  }
  void DoRmsNormBackwardWeight(Stream& s, const RmsNormBackwardWeightArgs& args) override {
    CudaRmsNormBackwardWeight(CudaStreamOf(s), args);
  }
  void DoRope(Stream& s, const RopeArgs& args) override { CudaRope(CudaStreamOf(s), args); }
  void DoAttentionForward(Stream& s, const AttentionArgs& args, View out, View log_sum_exp, View workspace) override {
    attention_.Forward(CudaStreamOf(s), args, out, log_sum_exp, workspace);
  }
  void DoAttentionBackward(Stream& s, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                           View workspace) override {
    attention_.Backward(CudaStreamOf(s), args, grads, workspace);
  }
  void DoSwiGlu(Stream& s, const SwiGluArgs& args, MutableOperand y) override { CudaSwiGlu(CudaStreamOf(s), args, y); }
  void DoSwiGluBackward(Stream& s, const SwiGluArgs& args, ConstView dy, View d_gate_up, View d_row_weight) override {
    CudaSwiGluBackward(CudaStreamOf(s), args, dy, d_gate_up, d_row_weight);
  }
  void DoGate(Stream& s, const GateArgs& args, const GateResult& result) override {
    CudaGate(CudaStreamOf(s), args, result);
  }
  void DoGateBackward(Stream& s, const GateArgs& args, const GateBackwardArgs& grads) override {
    CudaGateBackward(CudaStreamOf(s), args, grads);
  }
  void DoSequenceBalance(Stream& s, const SequenceBalanceArgs& args) override {
    CudaSequenceBalance(CudaStreamOf(s), args);
  }
  void DoPlanDispatch(Stream& s, const PlanDispatchArgs& args) override { CudaPlanDispatch(CudaStreamOf(s), args); }
  void DoGatherRows(Stream& s, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) override {
    CudaGatherRows(CudaStreamOf(s), x, row_token, offsets, y);
  }
  void DoGatherChosen(Stream& s, ConstView chosen_values, ConstView row_slot, ConstView offsets,
                      View row_values) override {
    CudaGatherChosen(CudaStreamOf(s), chosen_values, row_slot, offsets, row_values);
  }
  void DoScatterChosen(Stream& s, ConstView row_values, ConstView slot_row, View chosen_values) override {
    CudaScatterChosen(CudaStreamOf(s), row_values, slot_row, chosen_values);
  }
  void DoCombineRows(Stream& s, const CombineArgs& args, View out) override {
    CudaCombineRows(CudaStreamOf(s), args, out);
  }
  void DoEmbedding(Stream& s, ConstView ids, ConstView table, View x) override {
    CudaEmbedding(CudaStreamOf(s), ids, table, x);
  }
  void DoEmbeddingBackward(Stream& s, ConstView ids, ConstView dx, View d_table) override {
    CudaEmbeddingBackward(CudaStreamOf(s), ids, dx, d_table);
  }
  void DoCrossEntropy(Stream& s, const CrossEntropyArgs& args) override { CudaCrossEntropy(CudaStreamOf(s), args); }
  void DoSumRows(Stream& s, ConstView x, View sum) override { CudaSumRows(CudaStreamOf(s), x, sum); }
  void DoSquaredNorm(Stream& s, ConstView x, View block_sums) override {
    CudaSquaredNorm(CudaStreamOf(s), x, block_sums);
  }
  void DoAdamW(Stream& s, const AdamWArgs& args) override { CudaAdamW(CudaStreamOf(s), args); }
  void DoEma(Stream& s, ConstView weights, double decay, View ema) override {
    CudaEma(CudaStreamOf(s), weights, decay, ema);
  }

  const CudaContext context_;
  CudaGemm gemm_;
  CudaAttention attention_;
};

}  // namespace

std::unique_ptr<Backend> MakeCudaBackend(const CudaBackendOptions& options, CudaFailure& failure) {
  CudaContext context;
  if (!OpenCudaDevice(options, context, failure)) return nullptr;
  return std::make_unique<CudaBackend>(std::move(context));
}

}  // namespace shoestring
