// SwiGLU and its gradient on the CPU.
#include "kernels/cpu/cpu_operations.h"

namespace shoestring {

void CpuSwiGlu(const CpuContext& cpu, const SwiGluArgs& args, const MutableOperand& y) {
  const SwiGluLoop loop = {.gate_up = RowsOf(args.gate_up),
                           .row_weight = DataOrNull<float>(args.row_weight),
                           .y = y.quantised() ? Rows() : RowsOf(y.values),
                           .width = args.gate_up.cols / 2};
  const int64_t rows = ExistingRows(args.offsets, args.gate_up.rows);
  if (!y.quantised()) {
    ForRowRanges(cpu, rows, args.gate_up.cols, [&](int64_t begin, int64_t end) { cpu.ops.swiglu(loop, begin, end); });
    return;
  }
  ForQuantisedRanges(cpu, rows, loop.gate_up.bf16, y, [&](const Rows& scratch, int64_t begin, int64_t end) {
    SwiGluLoop part = loop;
    part.gate_up = RowsFrom(loop.gate_up, begin);
    if (loop.row_weight != nullptr) part.row_weight = loop.row_weight + begin;
    part.y = scratch;
    cpu.ops.swiglu(part, 0, end - begin);
  });
}

void CpuSwiGluBackward(const CpuContext& cpu, const SwiGluArgs& args, ConstView dy, View d_gate_up, View d_row_weight) {
  const SwiGluBackwardLoop loop = {.gate_up = RowsOf(args.gate_up),
                                   .row_weight = DataOrNull<float>(args.row_weight),
                                   .dy = RowsOf(dy),
                                   .d_gate_up = RowsOf(d_gate_up),
                                   .d_row_weight = DataOrNull<float>(d_row_weight),
                                   .width = args.gate_up.cols / 2};
  ForRowRanges(cpu, ExistingRows(args.offsets, args.gate_up.rows), args.gate_up.cols,
               [&](int64_t begin, int64_t end) { cpu.ops.swiglu_backward(loop, begin, end); });
}

}  // namespace shoestring
