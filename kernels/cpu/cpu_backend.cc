// The CPU backend's class: owns the threads, the scratch and the tables of its level; hands every operation to its
// body.
#include "kernels/cpu/cpu_backend.h"

#include <cstring>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_operations.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/thread_pool.h"

namespace shoestring {
namespace {

class CpuStream : public Stream {};

ScaleGrid MakeScaleGrid(const Operand& x) { return {DataOrNull<float>(x.scales), x.scales.stride, x.tile}; }

GemmCall MakeGemmCall(GemmLayout layout, const Operand& a_operand, const Operand& b_operand, const View& c,
                      bool accumulate, const Fp8Accumulation& how) {
  const ConstView& a = a_operand.values;
  const ConstView& b = b_operand.values;
  return {.layout = layout,
          .m = layout == GemmLayout::kTN ? a.cols : a.rows,
          .n = layout == GemmLayout::kNT ? b.rows : b.cols,
          .k = layout == GemmLayout::kTN ? a.rows : a.cols,
          .in_type = a.dtype,
          .a = a.data,
          .lda = a.stride,
          .b = b.data,
          .ldb = b.stride,
          .out_type = c.dtype,
          .c = c.data,
          .ldc = c.stride,
          .accumulate = accumulate,
          .fp8 = {.b_type = b.dtype, .a = MakeScaleGrid(a_operand), .b = MakeScaleGrid(b_operand), .how = how}};
}

CpuAttentionCall MakeAttentionCall(const AttentionArgs& args, const View& log_sum_exp) {
  return {.shape = args.shape,
          .dtype = args.q.dtype,
          .scale = static_cast<float>(args.scale),
          .q = args.q.data,
          .q_ld = args.q.stride,
          .kv = args.kv.data,
          .kv_ld = args.kv.stride,
          .k_rope = args.k_rope.data,
          .k_rope_ld = args.k_rope.stride,
          .first_visible = args.first_visible ? args.first_visible.as<int32_t>() : nullptr,
          .out = nullptr,
          .out_ld = 0,
          .lse = log_sum_exp.as<float>(),
          .lse_ld = log_sum_exp.stride};
}

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const CpuBackendOptions& options)
      : isa_(options.isa),
        pool_(options.threads, options.spin),
        scratch_(options.threads),
        cpu_{pool_, VectorOpsOf(options.isa), scratch_},
        gemm_(&pool_, options.isa) {}

  const char* name() const override { return "cpu"; }
  bool Supports(DType) const override { return true; }
  std::unique_ptr<Stream> MakeStream() override { return std::make_unique<CpuStream>(); }
  void Synchronize(Stream&) override {}  // every call has finished when it returned
  int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) const override {
    return CpuAttentionWorkspaceBytes(shape, isa_, pool_.threads(), backward);
  }

 private:
  void DoZero(Stream&, View x) override { CpuZero(cpu_, x); }
  void DoCopy(Stream&, ConstView x, View y) override { CpuCopy(cpu_, x, y); }
  void DoCopyToHost(Stream&, ConstView x, void* host) override { std::memcpy(host, x.data, x.bytes()); }
  void DoCopyFromHost(Stream&, const void* host, View x) override { std::memcpy(x.data, host, x.bytes()); }
  void DoAdd(Stream&, ConstView a, ConstView b, View y) override { CpuAdd(cpu_, a, b, y); }

  void DoQuantize(Stream&, const QuantizeArgs& args) override { CpuQuantize(cpu_, args); }
  void DoDequantize(Stream&, Operand x, View y, int64_t stack, ConstView offsets) override {
    CpuDequantize(cpu_, x, y, stack, offsets);
  }
  void DoGemm(Stream&, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
              const Fp8Accumulation& how) override {
    gemm_.Run(MakeGemmCall(layout, a, b, c, accumulate, how));
  }
  void DoGroupedGemm(Stream&, GemmLayout layout, const Segments& segments, Operand a, Operand b, View c,
                     bool accumulate, const Fp8Accumulation& how) override {
    ExistingRows(segments.offsets, segments.max_rows);
    GroupedGemmCall call = {.each = MakeGemmCall(layout, a, b, c, accumulate, how),
                            .groups = static_cast<int>(segments.groups),
                            .offsets = segments.offsets.as<int32_t>()};
    if (layout == GemmLayout::kTN) {
      call.stride = call.each.m * c.stride;
    } else {
      const int64_t rows = b.values.rows / segments.groups;  // of one group's matrix
      if (layout == GemmLayout::kNT) call.each.n = rows;
      call.stride = rows * b.values.stride;
      if (b.quantised()) call.scale_rows = ScaleRows(b.tile, rows);
    }
    gemm_.RunGrouped(call);
  }

  void DoRmsNorm(Stream&, const RmsNormArgs& args) override { CpuRmsNorm(cpu_, args); }
  void DoRmsNormBackwardInput(Stream&, const RmsNormBackwardInputArgs& args) override {
    CpuRmsNormBackwardInput(cpu_, args);
  }
  void DoRmsNormBackwardWeight(Stream&, const RmsNormBackwardWeightArgs& args) override {
    CpuRmsNormBackwardWeight(cpu_, args);
  }
  void DoRope(Stream&, const RopeArgs& args) override { CpuRope(cpu_, args); }
  void DoAttentionForward(Stream&, const AttentionArgs& args, View out, View log_sum_exp, View workspace) override;
  void DoAttentionBackward(Stream&, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                           View workspace) override;
  void DoSwiGlu(Stream&, const SwiGluArgs& args, MutableOperand y) override { CpuSwiGlu(cpu_, args, y); }
  void DoSwiGluBackward(Stream&, const SwiGluArgs& args, ConstView dy, View d_gate_up, View d_row_weight) override {
    CpuSwiGluBackward(cpu_, args, dy, d_gate_up, d_row_weight);
  }

  void DoGate(Stream&, const GateArgs& args, const GateResult& result) override { CpuGate(cpu_, args, result); }
  void DoGateBackward(Stream&, const GateArgs& args, const GateBackwardArgs& grads) override {
    CpuGateBackward(cpu_, args, grads);
  }
  void DoSequenceBalance(Stream&, const SequenceBalanceArgs& args) override { CpuSequenceBalance(cpu_, args); }
  void DoPlanDispatch(Stream&, const PlanDispatchArgs& args) override { CpuPlanDispatch(args); }
  void DoGatherRows(Stream&, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) override {
    CpuGatherRows(cpu_, x, row_token, offsets, y);
  }
  void DoGatherChosen(Stream&, ConstView chosen_values, ConstView row_slot, ConstView offsets,
                      View row_values) override {
    CpuGatherChosen(chosen_values, row_slot, offsets, row_values);
  }
  void DoScatterChosen(Stream&, ConstView row_values, ConstView slot_row, View chosen_values) override {
    CpuScatterChosen(row_values, slot_row, chosen_values);
  }
  void DoCombineRows(Stream&, const CombineArgs& args, View out) override { CpuCombineRows(cpu_, args, out); }

  void DoEmbedding(Stream&, ConstView ids, ConstView table, View x) override { CpuEmbedding(cpu_, ids, table, x); }
  void DoEmbeddingBackward(Stream&, ConstView ids, ConstView dx, View d_table) override {
    CpuEmbeddingBackward(cpu_, ids, dx, d_table);
  }
  void DoCrossEntropy(Stream&, const CrossEntropyArgs& args) override { CpuCrossEntropy(cpu_, args); }
  void DoSumRows(Stream&, ConstView x, View sum) override { CpuSumRows(x, sum); }
  void DoSquaredNorm(Stream&, ConstView x, View block_sums) override { CpuSquaredNorm(cpu_, x, block_sums); }
  void DoAdamW(Stream&, const AdamWArgs& args) override { CpuAdamW(cpu_, args); }
  void DoEma(Stream&, ConstView weights, double decay, View ema) override { CpuEma(cpu_, weights, decay, ema); }

  const Isa isa_;
  ThreadPool pool_;
  CpuScratch scratch_;
  CpuContext cpu_;
  CpuGemm gemm_;
};

void CpuBackend::DoAttentionForward(Stream&, const AttentionArgs& args, View out, View log_sum_exp, View workspace) {
  CpuAttentionCall call = MakeAttentionCall(args, log_sum_exp);
  call.out = out.data;
  call.out_ld = out.stride;
  CpuAttentionForward(pool_, isa_, call, workspace.data);
}

void CpuBackend::DoAttentionBackward(Stream&, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                                     View workspace) {
  // Backward only reads out and log_sum_exp; the call's pointers are mutable for forward's sake.
  const auto writable = [](const ConstView& x) {
    return View(const_cast<std::byte*>(x.data), x.dtype, x.rows, x.cols, x.stride);
  };
  CpuAttentionCall call = MakeAttentionCall(args, writable(grads.log_sum_exp));
  call.out = writable(grads.out).data;
  call.out_ld = grads.out.stride;
  CpuAttentionBackward(pool_, isa_, call,
                       {.d_out = grads.d_out.data,
                        .d_out_ld = grads.d_out.stride,
                        .d_q = grads.d_q.data,
                        .d_q_ld = grads.d_q.stride,
                        .d_kv = grads.d_kv.data,
                        .d_kv_ld = grads.d_kv.stride,
                        .d_k_rope = grads.d_k_rope.data,
                        .d_k_rope_ld = grads.d_k_rope.stride},
                       workspace.data);
}

}  // namespace

std::unique_ptr<Backend> MakeCpuBackend(const CpuBackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace shoestring
