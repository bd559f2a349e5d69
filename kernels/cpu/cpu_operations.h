// The CPU bodies of the memory-bound operations: they unpack views, cut the work for the threads, call the vector
// loops.
//
// Arguments have passed Backend's checks. What only the values can tell (an id outside its table) is checked here. Work
// is cut so that no result depends on the number of threads. `kernels/cpu/<stem>.cc` holds the bodies of one family and
// <stem>_level.h its vector loops.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring {

// Bounds of the scratch below; V3 has 256 experts, in 8 groups.
inline constexpr int64_t kCpuMaxExperts = 4096;
inline constexpr int64_t kCpuPartialSums = 1024;

// Taken once when the backend is made, so that no operation allocates.
struct CpuScratch {
  explicit CpuScratch(int threads)
      : partial_sums(kCpuPartialSums), fractions(kCpuMaxExperts), counts(threads * kCpuMaxExperts) {}
  std::vector<double> partial_sums;
  std::vector<float> fractions;
  std::vector<int64_t> counts;  // [threads, kCpuMaxExperts]
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

void CpuZero(const CpuContext& cpu, View x);
void CpuCopy(const CpuContext& cpu, ConstView x, View y);
void CpuAdd(const CpuContext& cpu, ConstView a, ConstView b, View y);

void CpuRmsNorm(const CpuContext& cpu, const RmsNormArgs& args);
void CpuRmsNormBackwardInput(const CpuContext& cpu, const RmsNormBackwardInputArgs& args);
void CpuRmsNormBackwardWeight(const CpuContext& cpu, const RmsNormBackwardWeightArgs& args);
void CpuRope(const CpuContext& cpu, const RopeArgs& args);
void CpuSwiGlu(const CpuContext& cpu, const SwiGluArgs& args, View y);
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
