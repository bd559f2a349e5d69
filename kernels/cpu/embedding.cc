// Embedding lookup and its gradient on the CPU.
#include <cstring>

#include "kernels/cpu/cpu_operations.h"

namespace shoestring {
namespace {

constexpr int64_t kColumns = 32;  // whole cache lines of f32 in every thread's share

void CheckIds(const ConstView& ids, int64_t vocabulary) {
  const int32_t* id = ids.as<int32_t>();
  for (int64_t t = 0; t < ids.cols; ++t) {
    CHECK_GE(id[t], 0);
    CHECK_LT(id[t], vocabulary);
  }
}

}  // namespace

void CpuEmbedding(const CpuContext& cpu, ConstView ids, ConstView table, View x) {
  CheckIds(ids, table.rows);
  const int32_t* id = ids.as<int32_t>();
  ForRowRanges(cpu, ids.cols, table.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const ConstView row = table.Rows(id[t], 1);
      if (table.dtype == x.dtype) {
        std::memcpy(x.row_bytes(t), row.data, row.bytes());
      } else {
        cpu.ops.copy({RowsOf(row), RowsOf(x.Rows(t, 1)), x.cols}, 0, 1);
      }
    }
  });
}

void CpuEmbeddingBackward(const CpuContext& cpu, ConstView ids, ConstView dx, View d_table) {
  CheckIds(ids, d_table.rows);
  const EmbeddingBackwardLoop loop = {.ids = ids.as<int32_t>(),
                                      .tokens = ids.cols,
                                      .dx = RowsOf(dx),
                                      .d_table = d_table.as<float>(),
                                      .d_table_stride = d_table.stride};
  // Threads share the columns, not the tokens: so every row of the table is added to in token order.
  cpu.pool.ParallelRanges(dx.cols, kColumns,
                          [&](int64_t begin, int64_t end, int) { cpu.ops.embedding_backward(loop, begin, end); });
}

}  // namespace shoestring
