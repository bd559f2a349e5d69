// Zero, copy and add on the CPU.
#include <cstring>

#include "kernels/cpu/cpu_operations.h"

namespace shoestring {
namespace {

// Contiguous tensors are cut by element, so that one long row is shared by the threads too; others by row.
template <typename Fn>
void ForParts(const CpuContext& cpu, bool contiguous, int64_t rows, int64_t cols, Fn fn) {
  if (contiguous) {
    cpu.pool.ParallelRanges(rows * cols, kGrainElements,
                            [&](int64_t begin, int64_t end, int) { fn(0, 1, begin, end); });
  } else {
    ForRowRanges(cpu, rows, cols, [&](int64_t begin, int64_t end) { fn(begin, end, 0, cols); });
  }
}

template <typename ViewType>
auto ShiftedRows(const ViewType& x, int64_t elements) {
  auto rows = RowsOf(x);
  rows.data = x.data + elements * SizeOf(x.dtype);
  return rows;
}

}  // namespace

void CpuZero(const CpuContext& cpu, View x) {
  if (x.dtype == DType::kE5M6) {  // neighbours share bytes, as in CpuCopy
    CpuZero(cpu, {x.data, DType::kU8, x.rows, BytesOf(x.dtype, x.cols), BytesOf(x.dtype, x.stride)});
    return;
  }
  const int64_t size = SizeOf(x.dtype);
  ForParts(cpu, x.contiguous(), x.rows, x.cols, [&](int64_t row, int64_t end_row, int64_t col, int64_t end_col) {
    for (; row < end_row; ++row) std::memset(x.row_bytes(row) + col * size, 0, (end_col - col) * size);
  });
}

void CpuCopy(const CpuContext& cpu, ConstView x, View y) {
  if (x.dtype == DType::kE5M6) {  // neighbours share bytes: rows of bytes, not of elements
    const int64_t bytes = BytesOf(x.dtype, x.cols);
    CpuCopy(cpu, {x.data, DType::kU8, x.rows, bytes, BytesOf(x.dtype, x.stride)},
            {y.data, DType::kU8, y.rows, bytes, BytesOf(y.dtype, y.stride)});
    return;
  }
  const bool contiguous = x.contiguous() && y.contiguous();
  const int64_t size = SizeOf(x.dtype);
  ForParts(cpu, contiguous, x.rows, x.cols, [&](int64_t row, int64_t end_row, int64_t col, int64_t end_col) {
    if (x.dtype == y.dtype) {
      for (; row < end_row; ++row) {
        std::memmove(y.row_bytes(row) + col * size, x.row_bytes(row) + col * size, (end_col - col) * size);
      }
    } else {
      cpu.ops.copy({ShiftedRows(x, col), ShiftedRows(y, col), end_col - col}, row, end_row);
    }
  });
}

void CpuAdd(const CpuContext& cpu, ConstView a, ConstView b, View y) {
  const bool contiguous = a.contiguous() && b.contiguous() && y.contiguous();
  ForParts(cpu, contiguous, a.rows, a.cols, [&](int64_t row, int64_t end_row, int64_t col, int64_t end_col) {
    cpu.ops.add({ShiftedRows(a, col), ShiftedRows(b, col), ShiftedRows(y, col), end_col - col}, row, end_row);
  });
}

}  // namespace shoestring
