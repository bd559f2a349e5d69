// Rotary positions on the CPU.
#include "kernels/cpu/cpu_operations.h"

namespace shoestring {

void CpuRope(const CpuContext& cpu, const RopeArgs& args) {
  const int32_t* positions = args.positions.as<int32_t>();
  for (int64_t row = 0; row < args.x.rows; ++row) {
    CHECK_GE(positions[row], 0);
    CHECK_LT(positions[row], args.cos_table.rows);
  }
  CHECK_EQ(args.cos_table.stride, args.sin_table.stride);
  const RopeLoop loop = {.x = RowsOf(args.x),
                         .heads = args.heads,
                         .head_stride = args.head_stride,
                         .offset = args.offset,
                         .pairs = args.cos_table.cols,
                         .cos_table = args.cos_table.as<float>(),
                         .sin_table = args.sin_table.as<float>(),
                         .table_stride = args.cos_table.stride,
                         .positions = positions,
                         .sign = args.inverse ? -1.0f : 1.0f};
  ForRowRanges(cpu, args.x.rows, args.heads * loop.pairs * 2,
               [&](int64_t begin, int64_t end) { cpu.ops.rope(loop, begin, end); });
}

}  // namespace shoestring
