// The CPU bodies of the memory-bound operations: they unpack views, cut the work for the threads, call the vector
// loops.
//
// Arguments have passed Backend's checks. What only the values can tell (an id outside its table) is checked here. Work
// is cut so that no result depends on the number of threads. `kernels/cpu/<stem>.cc` holds the bodies of one family and
// <stem>_level.h its vector loops.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/limits.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring {

inline constexpr int64_t kCpuPartialSums = 1024;

// Taken once when the backend is made, so that no operation allocates.
struct CpuScratch {
  explicit CpuScratch(int threads)
      : partial_sums(kCpuPartialSums),
        fractions(kMaxExperts),
        counts(threads * kMaxExperts),
        rows(threads * kMaxQuantisedColumns) {}
  std::vector<double> partial_sums;
  std::vector<float> fractions;
  std::vector<int64_t> counts;  // [threads, kMaxExperts]
  std::vector<float> rows;      // [threads, kMaxQuantisedColumns]
};

struct CpuContext {
  ThreadPool& pool;
  const VectorOps& ops;
  CpuScratch& scratch;
};

inline Rows RowsOf(const View& x) { return {x.data, x.stride, x.dtype == DType::kBF16}; }
inline ConstRows RowsOf(const ConstView& x) { return {x.data, x.stride, x.dtype == DType::kBF16}; }
template <typename T, typename ViewType>
auto* DataOrNull(const ViewType& x) {
  return x ? x.template as<T>() : nullptr;
}

// About 64 KB of f32: enough work to be worth handing to another thread.
inline constexpr int64_t kGrainElements = int64_t{1} << 14;

// fn(first_row, end_row) over [0, rows).
template <typename Fn>
void ForRowRanges(const CpuContext& cpu, int64_t rows, int64_t cols, Fn fn) {
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, cols));
  cpu.pool.ParallelRanges(rows, grain, [&](int64_t begin, int64_t end, int) { fn(begin, end); });
}

// The loop that quantises numbers of its `x`, still to be set, into y.
QuantiseLoop MakeQuantiseLoop(const MutableOperand& y);

template <typename RowsType>
RowsType RowsFrom(RowsType rows, int64_t first) {
  using Byte = std::conditional_t<std::is_same_v<RowsType, Rows>, char, const char>;
  if (rows.data != nullptr) rows.data = static_cast<Byte*>(rows.data) + first * rows.stride * (rows.bf16 ? 2 : 4);
  return rows;
}

// For operations whose y is quantised as it is made. make(scratch, begin, end) writes the rows [begin, end) of what is
// quantised to scratch, as an act tensor that starts there.
template <typename Fn>
void ForQuantisedRanges(const CpuContext& cpu, int64_t rows, bool bf16, const MutableOperand& y, Fn make) {
  const int64_t cols = y.values.cols;
  CHECK_LE(cols, kMaxQuantisedColumns);
  const int64_t at_once = std::max<int64_t>(1, kGrainElements / 4 / std::max<int64_t>(1, cols));
  cpu.pool.ParallelRanges(rows, at_once, [&](int64_t begin, int64_t end, int worker) {
    const Rows scratch = {cpu.scratch.rows.data() + worker * kMaxQuantisedColumns, cols, bf16};
    QuantiseLoop loop = MakeQuantiseLoop(y);
    CodedRows all = loop.y;
    loop.x = {scratch.data, scratch.stride, scratch.bf16};
    for (int64_t first = begin; first < end; first += at_once) {
      const int64_t last = std::min(end, first + at_once);
      make(scratch, first, last);
      loop.y.codes = all.codes + first * all.stride;
      cpu.ops.quantise(loop, 0, last - first, first);
    }
  });
}

void CpuZero(const CpuContext& cpu, View x);
void CpuCopy(const CpuContext& cpu, ConstView x, View y);
void CpuAdd(const CpuContext& cpu, ConstView a, ConstView b, View y);

void CpuRmsNorm(const CpuContext& cpu, const RmsNormArgs& args);
void CpuRmsNormBackwardInput(const CpuContext& cpu, const RmsNormBackwardInputArgs& args);
void CpuRmsNormBackwardWeight(const CpuContext& cpu, const RmsNormBackwardWeightArgs& args);
void CpuRope(const CpuContext& cpu, const RopeArgs& args);
void CpuSwiGlu(const CpuContext& cpu, const SwiGluArgs& args, const MutableOperand& y);
void CpuSwiGluBackward(const CpuContext& cpu, const SwiGluArgs& args, ConstView dy, View d_gate_up, View d_row_weight);

void CpuGate(const CpuContext& cpu, const GateArgs& args, const GateResult& result);
void CpuGateBackward(const CpuContext& cpu, const GateArgs& args, const GateBackwardArgs& grads);
void CpuSequenceBalance(const CpuContext& cpu, const SequenceBalanceArgs& args);

void CpuPlanDispatch(const PlanDispatchArgs& args);
void CpuGatherRows(const CpuContext& cpu, const Operand& x, ConstView row_token, ConstView offsets,
                   const MutableOperand& y);
void CpuGatherChosen(ConstView chosen_values, ConstView row_slot, ConstView offsets, View row_values);
void CpuScatterChosen(ConstView row_values, ConstView slot_row, View chosen_values);
void CpuCombineRows(const CpuContext& cpu, const CombineArgs& args, View out);

void CpuEmbedding(const CpuContext& cpu, ConstView ids, ConstView table, View x);
void CpuEmbeddingBackward(const CpuContext& cpu, ConstView ids, ConstView dx, View d_table);
void CpuCrossEntropy(const CpuContext& cpu, const CrossEntropyArgs& args);
void CpuSumRows(ConstView x, View sum);

void CpuSquaredNorm(const CpuContext& cpu, ConstView x, View block_sums);
void CpuAdamW(const CpuContext& cpu, const AdamWArgs& args);
void CpuEma(const CpuContext& cpu, ConstView weights, double decay, View ema);

// Rows that exist: the last of the offsets, or all where there are none.
int64_t ExistingRows(const ConstView& offsets, int64_t all);

void CpuQuantize(const CpuContext& cpu, const QuantizeArgs& args);
void CpuDequantize(const CpuContext& cpu, const Operand& x, const View& y, int64_t stack, const ConstView& offsets);

}  // namespace shoestring
