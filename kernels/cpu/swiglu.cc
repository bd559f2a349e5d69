// SwiGLU and its gradient on the CPU.
#include "kernels/cpu/cpu_operations.h"

namespace shoestring {

void CpuSwiGlu(const CpuContext& cpu, const SwiGluArgs& args, View y) {
  const SwiGluLoop loop = {.gate_up = RowsOf(args.gate_up),
                           .row_weight = DataOrNull<float>(args.row_weight),
                           .y = RowsOf(y),
                           .width = args.gate_up.cols / 2};
  ForRowRanges(cpu, ExistingRows(args.offsets, args.gate_up.rows), args.gate_up.cols,
               [&](int64_t begin, int64_t end) { cpu.ops.swiglu(loop, begin, end); });
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
