// Moving tokens to their experts and back on the GPU.
#include "kernels/cuda/cuda_operations.h"
#include "kernels/cuda/device.cuh"

namespace shoestring {
namespace {

constexpr uint32_t kAllLanes = 0xffffffffu;

// --- plan: a stable counting sort -----------------------------------------------------------------------------------

// Pairs (token, slot) are numbered token after token. Unit u, a block of one warp, has pairs [u * unit, (u + 1) *
// unit).
struct SortCall {
  const int32_t* experts;
  int64_t experts_stride, chosen, pairs, unit, units, expert_count;
  int32_t* before;  // [expert_count, units]: pairs of the expert in the unit, then in the units before it
  int32_t* totals;  // [expert_count]
  int32_t *offsets, *row_token, *row_slot, *slot_row;
  int64_t slot_row_stride;

  __device__ int32_t Expert(int64_t pair) const {
    const int32_t expert = experts[pair / chosen * experts_stride + pair % chosen];
    DEVICE_CHECK(expert >= 0 && expert < expert_count);
    return expert;
  }
};

// Calls visit(pair, expert, lanes of the same expert) for the unit's pairs in order, a warp of them at once; lanes
// without a pair have expert -1 and take part.
template <typename Visit>
__device__ void ForUnitPairs(const SortCall& call, Visit visit) {
  const int64_t first = blockIdx.x * call.unit, end = min(first + call.unit, call.pairs);
  for (int64_t base = first; base < end; base += kWarp) {
    const int64_t pair = base + threadIdx.x;
    const int32_t expert = pair < end ? call.Expert(pair) : -1;
    visit(pair, expert, __match_any_sync(kAllLanes, expert));
  }
}

__global__ void __launch_bounds__(kWarp) CountUnitKernel(SortCall call) {
  extern __shared__ int32_t counts[];
  for (int64_t e = threadIdx.x; e < call.expert_count; e += kWarp) counts[e] = 0;
  __syncwarp();
  ForUnitPairs(call, [&](int64_t, int32_t expert, uint32_t same) {
    const bool leads = (same & ((1u << threadIdx.x) - 1)) == 0;
    if (expert >= 0 && leads) counts[expert] += __popc(same);
    __syncwarp();
  });
  for (int64_t e = threadIdx.x; e < call.expert_count; e += kWarp) call.before[e * call.units + blockIdx.x] = counts[e];
}

// The inclusive sum over the lanes up to this one.
__device__ int32_t WarpScan(int32_t value) {
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t below = __shfl_up_sync(kAllLanes, value, step);
    if (threadIdx.x % kWarp >= step) value += below;
  }
  return value;
}

// A warp for each expert: counts of units become sums of those before.
__global__ void __launch_bounds__(kWarp) ScanUnitsKernel(SortCall call) {
  int32_t* before = call.before + blockIdx.x * call.units;
  int32_t carry = 0;
  for (int64_t base = 0; base < call.units; base += kWarp) {
    const int64_t unit = base + threadIdx.x;
    const int32_t count = unit < call.units ? before[unit] : 0;
    const int32_t sum = WarpScan(count);
    if (unit < call.units) before[unit] = carry + sum - count;
    carry += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  if (threadIdx.x == 0) call.totals[blockIdx.x] = carry;
}

__global__ void __launch_bounds__(kWarp) DealRowsKernel(SortCall call) {
  extern __shared__ int32_t next[];  // row of the expert's next pair
  int32_t carry = 0;
  for (int64_t base = 0; base < call.expert_count; base += kWarp) {
    const int64_t e = base + threadIdx.x;
    const int32_t total = e < call.expert_count ? call.totals[e] : 0;
    const int32_t sum = WarpScan(total);
    if (e < call.expert_count) {
      next[e] = carry + sum - total + (call.units > 0 ? call.before[e * call.units + blockIdx.x] : 0);
      if (blockIdx.x == 0) call.offsets[e] = carry + sum - total;
    }
    carry += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) call.offsets[call.expert_count] = carry;
  __syncwarp();
  ForUnitPairs(call, [&](int64_t pair, int32_t expert, uint32_t same) {
    const uint32_t below = same & ((1u << threadIdx.x) - 1);
    int32_t row = 0;
    if (expert >= 0) row = next[expert] + __popc(below);
    __syncwarp();
    if (expert >= 0 && below == 0) next[expert] += __popc(same);
    __syncwarp();
    if (expert < 0) return;
    const int64_t token = pair / call.chosen, slot = pair % call.chosen;
    call.row_token[row] = static_cast<int32_t>(token);
    call.row_slot[row] = static_cast<int32_t>(pair);
    call.slot_row[token * call.slot_row_stride + slot] = row;
  });
}

// --- gather ---------------------------------------------------------------------------------------------------------

struct GatherCall {
  const std::byte* x;
  int64_t x_stride, x_rows;  // stride in bytes
  std::byte* y;
  int64_t y_stride, y_rows;
  const int32_t* row_token;
  const int32_t* last_offset;
  int64_t units;  // of a row
};

template <typename Unit>
__global__ void __launch_bounds__(kSpanThreads) GatherRowsKernel(GatherCall call) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int64_t unit = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (row >= ExistingRows(call.last_offset, call.y_rows) || unit >= call.units) return;
  const int64_t token = call.row_token[row];
  DEVICE_CHECK(token >= 0 && token < call.x_rows);
  reinterpret_cast<Unit*>(call.y + row * call.y_stride)[unit] =
      reinterpret_cast<const Unit*>(call.x + token * call.x_stride)[unit];
}

void GatherBytes(CudaStream& stream, const ConstView& x, const ConstView& row_token, const ConstView& offsets,
                 const View& y) {
  const int64_t size = SizeOf(x.dtype), row_bytes = x.cols * size;
  if (row_bytes == 0 || row_token.cols == 0) return;
  GatherCall call = {x.data,
                     x.stride * size,
                     x.rows,
                     y.data,
                     y.stride * size,
                     row_token.cols,
                     row_token.as<int32_t>(),
                     LastOffset(offsets),
                     /*units=*/0};
  const auto fits = [&](int64_t unit) {
    const auto all = static_cast<int64_t>(reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(y.data)) |
                     call.x_stride | call.y_stride | row_bytes;
    return all % unit == 0;
  };
  const auto launch = [&](auto unit) {
    call.units = row_bytes / static_cast<int64_t>(sizeof(unit));
    const SpanPlan plan = PlanSpans(call.units);
    GatherRowsKernel<decltype(unit)><<<dim3(DivideUp(call.y_rows, plan.rows_per_block), plan.spans),
                                       dim3(plan.threads, plan.rows_per_block), 0, stream.get()>>>(call);
  };
  if (fits(16)) {
    launch(uint4{});
  } else if (fits(4)) {
    launch(uint32_t{});
  } else {
    launch(uint8_t{});
  }
  CUDA_CHECK_LAUNCH();
}

constexpr int kThreads = 256;

__global__ void GatherChosenKernel(const float* from, int64_t slots, const int32_t* row_slot,
                                   const int32_t* last_offset, int64_t rows, float* to) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= ExistingRows(last_offset, rows)) return;
  const int64_t slot = row_slot[row];
  DEVICE_CHECK(slot >= 0 && slot < slots);
  to[row] = from[slot];
}

__global__ void ScatterChosenKernel(const float* from, int64_t rows, const int32_t* slot_row, int64_t slot_row_stride,
                                    int64_t tokens, int64_t chosen, float* to, int64_t to_stride) {
  const int64_t pair = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t token = pair / chosen, slot = pair % chosen;
  if (token >= tokens) return;
  const int64_t row = slot_row[token * slot_row_stride + slot];
  DEVICE_CHECK(row >= 0 && row < rows);
  to[token * to_stride + slot] = from[row];
}

// --- combine --------------------------------------------------------------------------------------------------------

struct CombineCall {
  InRows y;
  int64_t y_rows, tokens, cols, chosen, experts_per_group;
  const int32_t *slot_row, *experts;
  int64_t slot_row_stride, experts_stride;
  InRows base;
  OutRows out;
};

constexpr int kRowsAtOnce = 4;  // rows of experts that a thread has under way

template <typename T, bool kVector>
__global__ void __launch_bounds__(kSpanThreads) CombineKernel(CombineCall call) {
  const int64_t token = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int64_t chunk = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  const int n = ChunkSize(chunk, call.cols);
  if (token >= call.tokens || n <= 0) return;
  const int32_t* rows = call.slot_row + token * call.slot_row_stride;
  const int32_t* experts = call.experts + token * call.experts_stride;
  float total[kChunk] = {}, group[kChunk] = {};
  const auto close = [&] {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      total[i] = total[i] + RoundAs<T>(group[i]);
      group[i] = 0;
    }
  };
  int64_t of_group = -1;
  for (int64_t k = 0; k < call.chosen; k += kRowsAtOnce) {
    float v[kRowsAtOnce][kChunk];
#pragma unroll
    for (int u = 0; u < kRowsAtOnce; ++u) {
      if (k + u >= call.chosen) continue;
      const int64_t row = rows[k + u];
      DEVICE_CHECK(row >= -1 && row < call.y_rows);
      if (row >= 0) LoadChunk<kVector>(call.y.Row<T>(row) + chunk * kChunk, n, v[u]);
    }
#pragma unroll
    for (int u = 0; u < kRowsAtOnce; ++u) {
      if (k + u >= call.chosen || rows[k + u] < 0) continue;
      const int64_t own_group = experts[k + u] / call.experts_per_group;
      if (of_group >= 0 && own_group != of_group) close();
      of_group = own_group;
#pragma unroll
      for (int i = 0; i < kChunk; ++i) group[i] = group[i] + v[u][i];
    }
  }
  close();
  if (call.base.data != nullptr) {
    float base[kChunk];
    LoadChunk<kVector>(call.base.Row<T>(token) + chunk * kChunk, n, base);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) total[i] = total[i] + base[i];
  }
  StoreChunk<kVector>(call.out.Row<T>(token) + chunk * kChunk, n, total);
}

}  // namespace

void CudaPlanDispatch(CudaStream& stream, const PlanDispatchArgs& args) {
  const int64_t pairs = args.experts.elements(), experts = args.expert_count;
  const int64_t unit = SortUnitPairs(pairs), units = DivideUp(pairs, unit);
  const int64_t table = experts * units;
  CHECK_LE((table + experts) * 4, stream.workspace_bytes());
  CHECK_LT(pairs, int64_t{1} << 31);
  int32_t* const workspace = reinterpret_cast<int32_t*>(stream.workspace());
  const SortCall call = {args.experts.as<int32_t>(),
                         args.experts.stride,
                         std::max<int64_t>(1, args.experts.cols),
                         pairs,
                         unit,
                         units,
                         experts,
                         workspace,
                         workspace + table,
                         args.offsets.as<int32_t>(),
                         args.row_token.as<int32_t>(),
                         args.row_slot.as<int32_t>(),
                         args.slot_row.as<int32_t>(),
                         args.slot_row.stride};
  const int64_t shared = experts * 4;
  CHECK_LE(shared, 48 << 10);  // 12,288 experts
  if (pairs > 0) {
    CountUnitKernel<<<units, kWarp, shared, stream.get()>>>(call);
    CUDA_CHECK_LAUNCH();
  }
  if (experts > 0) {
    ScanUnitsKernel<<<experts, kWarp, 0, stream.get()>>>(call);
    CUDA_CHECK_LAUNCH();
  }
  DealRowsKernel<<<std::max<int64_t>(1, units), kWarp, shared, stream.get()>>>(call);
  CUDA_CHECK_LAUNCH();
}

void CudaGatherRows(CudaStream& stream, const Operand& x, const ConstView& row_token, const ConstView& offsets,
                    const MutableOperand& y) {
  GatherBytes(stream, x.values, row_token, offsets, y.values);
  if (x.quantised()) GatherBytes(stream, x.scales, row_token, offsets, y.scales);
}

void CudaGatherChosen(CudaStream& stream, const ConstView& chosen_values, const ConstView& row_slot,
                      const ConstView& offsets, const View& row_values) {
  if (row_slot.cols == 0) return;
  GatherChosenKernel<<<DivideUp(row_slot.cols, kThreads), kThreads, 0, stream.get()>>>(
      chosen_values.as<float>(), chosen_values.elements(), row_slot.as<int32_t>(), LastOffset(offsets), row_slot.cols,
      row_values.as<float>());
  CUDA_CHECK_LAUNCH();
}

void CudaScatterChosen(CudaStream& stream, const ConstView& row_values, const ConstView& slot_row,
                       const View& chosen_values) {
  if (slot_row.elements() == 0) return;
  ScatterChosenKernel<<<DivideUp(slot_row.elements(), kThreads), kThreads, 0, stream.get()>>>(
      row_values.as<float>(), row_values.cols, slot_row.as<int32_t>(), slot_row.stride, slot_row.rows, slot_row.cols,
      chosen_values.as<float>(), chosen_values.stride);
  CUDA_CHECK_LAUNCH();
}

void CudaCombineRows(CudaStream& stream, const CombineArgs& args, const View& out) {
  const int64_t tokens = args.slot_row.rows, cols = args.y.cols;
  if (tokens == 0 || cols == 0) return;
  const CombineCall call = {InOf(args.y),
                            args.y.rows,
                            tokens,
                            cols,
                            args.slot_row.cols,
                            args.experts_per_group,
                            args.slot_row.as<int32_t>(),
                            args.experts.as<int32_t>(),
                            args.slot_row.stride,
                            args.experts.stride,
                            InOf(args.base),
                            OutOf(out)};
  const SpanPlan plan = PlanSpans(Chunks(cols));
  const dim3 grid(DivideUp(tokens, plan.rows_per_block), plan.spans), threads(plan.threads, plan.rows_per_block);
  const bool vector = AllowsVectors(args.y) && AllowsVectors(args.base) && AllowsVectors(out);
  WithActivation(args.y.dtype, [&](auto act) {
    WithBool(vector, [&](auto is_vector) {
      CombineKernel<decltype(act), is_vector><<<grid, threads, 0, stream.get()>>>(call);
    });
  });
  CUDA_CHECK_LAUNCH();
}

}  // namespace shoestring
