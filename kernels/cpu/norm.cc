// RMSNorm and its gradients on the CPU.
#include "kernels/cpu/cpu_operations.h"

namespace shoestring {
namespace {

constexpr int64_t kWeightBlockRows = 256;  // part of the numerics: kernels/operations.h
constexpr int64_t kWeightColumns = 64;     // what the vector loop takes at a time

}  // namespace

void CpuRmsNorm(const CpuContext& cpu, const RmsNormArgs& args) {
  const RmsNormLoop loop = {.x = RowsOf(args.x),
                            .delta = RowsOf(args.delta),
                            .sum = RowsOf(args.sum),
                            .gain = RowsOf(args.gain),
                            .eps = args.eps,
                            .y = args.y.quantised() ? Rows() : RowsOf(args.y.values),
                            .inverse_rms = DataOrNull<float>(args.inverse_rms),
                            .cols = args.x.cols};
  if (!args.y.quantised()) {
    ForRowRanges(cpu, args.x.rows, args.x.cols,
                 [&](int64_t begin, int64_t end) { cpu.ops.rms_norm(loop, begin, end); });
    return;
  }
  ForQuantisedRanges(cpu, args.x.rows, loop.x.bf16, args.y, [&](const Rows& scratch, int64_t begin, int64_t end) {
    RmsNormLoop part = loop;
    part.x = RowsFrom(loop.x, begin);
    part.delta = RowsFrom(loop.delta, begin);
    part.sum = RowsFrom(loop.sum, begin);
    if (loop.inverse_rms != nullptr) part.inverse_rms = loop.inverse_rms + begin;
    part.y = scratch;
    cpu.ops.rms_norm(part, 0, end - begin);
  });
}

void CpuRmsNormBackwardInput(const CpuContext& cpu, const RmsNormBackwardInputArgs& args) {
  const RmsNormBackwardInputLoop loop = {.dy = RowsOf(args.dy),
                                         .x = RowsOf(args.x),
                                         .gain = RowsOf(args.gain),
                                         .inverse_rms = args.inverse_rms.as<float>(),
                                         .add = RowsOf(args.add),
                                         .dx = RowsOf(args.dx),
                                         .cols = args.x.cols};
  ForRowRanges(cpu, args.x.rows, args.x.cols,
               [&](int64_t begin, int64_t end) { cpu.ops.rms_norm_backward_input(loop, begin, end); });
}

void CpuRmsNormBackwardWeight(const CpuContext& cpu, const RmsNormBackwardWeightArgs& args) {
  const RmsNormBackwardWeightLoop loop = {.dy = RowsOf(args.dy),
                                          .x = RowsOf(args.x),
                                          .inverse_rms = args.inverse_rms.as<float>(),
                                          .d_gain = args.d_gain.as<float>(),
                                          .rows = args.x.rows,
                                          .block_rows = kWeightBlockRows};
  cpu.pool.ParallelRanges(args.x.cols, kWeightColumns,
                          [&](int64_t begin, int64_t end, int) { cpu.ops.rms_norm_backward_weight(loop, begin, end); });
}

}  // namespace shoestring
