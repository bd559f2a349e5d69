// Grouped products of BF16 operands on Hopper's tensor cores, in every layout without a transposed copy: the baseline
// of the experts' products.
//
// The pipeline is that of grouped_gemm_fp8.cu. wgmma reads BF16 tiles along k or across it. Where a tile lies across k
// and its last block ends inside a matrix, the steps of k behind the end belong to a neighbour: they are set to zero.
#include <cuda.h>

#include "kernels/cuda/gemm_tensor_map.h"
#include "kernels/cuda/gemm_wgmma.cuh"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/grouped_gemm_schedule.h"
#include "kernels/cuda/grouped_gemm_store.cuh"
#include "kernels/cuda/kernel_launch.cuh"

namespace shoestring::cuda {
namespace {

constexpr int kConsumers = 2;              // warpgroups that multiply
constexpr int kBlockK = kBlockBytesK / 2;  // elements
constexpr int kStepK = 16;                 // of one instruction
constexpr uint32_t kTileBytes = kBlockM * kBlockBytesK;
constexpr uint32_t kHalfBytes = kTileBytes / 2;  // 64 rows of c, of a tile across k: [64 steps of k][64 rows]

struct BF16Params {
  const int32_t* offsets;
  int groups;
  int rows;  // without offsets
  int m, n, k;
  int c_group_rows;
  int stages;
  StoreTarget c;
};

struct Stages {
  uint32_t tiles;  // a multiple of 1,024
  uint32_t barriers;
  __device__ uint32_t a(int stage) const { return tiles + stage * 2 * kTileBytes; }
  __device__ uint32_t b(int stage) const { return a(stage) + kTileBytes; }
  __device__ uint32_t full(int stage) const { return barriers + stage * 16; }
  __device__ uint32_t empty(int stage) const { return barriers + stage * 16 + 8; }
};

template <bool kByTokens>
__device__ int ContractedOf(const BF16Params& p, const GroupedTile& t) {
  return kByTokens ? t.count : p.k;
}

// Brings a tile of 128 rows of c and 64 steps of k. `row`: along c, `k`: along k, in the stored matrix.
template <bool kAcross>
__device__ void FetchTile(uint32_t to, const CUtensorMap& from, uint32_t full, int row, int k) {
  if constexpr (kAcross) {
    CopyBox(to, from, full, row, k);
    CopyBox(to + kHalfBytes, from, full, row + 64, k);
  } else {
    CopyBox(to, from, full, k, row);
  }
}

// Layouts: NT <false, false>, NN <false, true>, TN <true, true>.
template <bool kAcrossA, bool kAcrossB>
__device__ void Produce(const BF16Params& p, const CUtensorMap& a, const CUtensorMap& b, const Stages& stages,
                        GroupedSchedule schedule) {
  PipelineState at;
  GroupedTile tile;
  for (int index = static_cast<int>(blockIdx.x); schedule.At(index, &tile); index += static_cast<int>(gridDim.x)) {
    const int m = tile.m_tile * kBlockM, n = tile.n_tile * kBlockN;
    const int a_row = kAcrossA ? m : tile.first + m;
    const int a_k = kAcrossA ? tile.first : 0;
    const int b_row = kAcrossB ? n : tile.group * p.n + n;
    const int b_k = kAcrossA ? tile.first : kAcrossB ? tile.group * p.k : 0;
    const int contracted = ContractedOf<kAcrossA>(p, tile);
    for (int k = 0; k < contracted; k += kBlockK) {
      BarrierWait(stages.empty(at.stage), at.phase ^ 1);
      const uint32_t full = stages.full(at.stage);
      BarrierExpect(full, 2 * kTileBytes);
      FetchTile<kAcrossA>(stages.a(at.stage), a, full, a_row, a_k + k);
      FetchTile<kAcrossB>(stages.b(at.stage), b, full, b_row, b_k + k);
      at.Next(p.stages);
    }
  }
}

// Sets the steps of k from `valid` on of a tile across k to zero; all consumers together. Swizzling permutes a line of
// 128 bytes within itself, so whole lines may be written without a look at it.
__device__ void ZeroBehind(uint32_t tile, int valid) {
  const int thread = static_cast<int>(threadIdx.x);  // of 256
  for (int i = valid * 8 + thread; i < kBlockK * 8; i += kConsumers * 128) {
#pragma unroll
    for (int half = 0; half < 2; ++half) StoreZeros(tile + half * kHalfBytes + i * 16);
  }
}

template <bool kAcross>
__device__ uint64_t StepDescriptor(uint32_t tile, int step) {
  // Across k: 16 steps of k are two atoms of 8 lines; 64 rows of c further there is another half.
  return kAcross ? TileDescriptor(tile + step * kStepK * 128, kHalfBytes, 1024)
                 : TileDescriptor(tile + step * kStepK * 2, 0, 1024);
}

template <bool kAcrossA, bool kAcrossB>
__device__ void MultiplyStage(uint32_t a, uint32_t b, bool add, WarpgroupSum& sum) {
  HoldSum(sum);
  WarpgroupArrive();
#pragma unroll
  for (int step = 0; step < kBlockK / kStepK; ++step) {
    MultiplyBF16<kAcrossA, kAcrossB>(sum, StepDescriptor<kAcrossA>(a, step), StepDescriptor<kAcrossB>(b, step),
                                     step > 0 || add ? 1 : 0);
  }
  WarpgroupCommit();
  HoldSum(sum);
}

// Sums of one tile; leaves `at` behind its last stage, all stages given back.
template <bool kAcrossA, bool kAcrossB>
__device__ void ConsumeTile(const BF16Params& p, const Stages& stages, int consumer, int contracted, PipelineState& at,
                            WarpgroupSum& sum) {
  const bool speaks = threadIdx.x % 32 == 0;
  int before = -1;  // stage whose product may still be running
  for (int k = 0; k < contracted; k += kBlockK) {
    BarrierWait(stages.full(at.stage), at.phase);
    if (kAcrossB && contracted - k < kBlockK) {
      if (kAcrossA) ZeroBehind(stages.a(at.stage), contracted - k);
      ZeroBehind(stages.b(at.stage), contracted - k);
      CopyEngineFence();
      SyncSome(1, kConsumers * 128);
    }
    MultiplyStage<kAcrossA, kAcrossB>(stages.a(at.stage) + consumer * kHalfBytes, stages.b(at.stage), k > 0, sum);
    WarpgroupWait<1>();
    if (before >= 0 && speaks) BarrierArrive(stages.empty(before));
    before = at.stage;
    at.Next(p.stages);
  }
  WarpgroupWait<0>();
  HoldSum(sum);
  if (before >= 0 && speaks) BarrierArrive(stages.empty(before));
}

template <bool kAcrossA, bool kAcrossB>
__device__ void Consume(const BF16Params& p, const Stages& stages, int consumer, GroupedSchedule schedule) {
  constexpr bool kByTokens = kAcrossA;
  PipelineState at;
  GroupedTile tile;
  for (int index = static_cast<int>(blockIdx.x); schedule.At(index, &tile); index += static_cast<int>(gridDim.x)) {
    const int contracted = ContractedOf<kByTokens>(p, tile);
    WarpgroupSum sum;
#pragma unroll
    for (int i = 0; i < 64; ++i) sum.d[i] = 0;
    ConsumeTile<kAcrossA, kAcrossB>(p, stages, consumer, contracted, at, sum);
    // No tokens, no operation; but an expert's gradient that is assigned exists.
    if (contracted > 0 || !p.c.accumulate) {
      const int64_t before = kByTokens ? int64_t{tile.group} * p.c_group_rows : tile.first;
      StoreSum(p.c, before + tile.m_tile * kBlockM + consumer * 64, before + (kByTokens ? p.m : tile.count),
               tile.n_tile * kBlockN, sum);
    }
  }
}

template <bool kAcrossA, bool kAcrossB>
__global__ void __launch_bounds__(kBlockThreads, 1)
    GroupedBF16Kernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                      const BF16Params p) {
  Stages stages;
  stages.tiles = (SharedAddress(DynamicShared<uint8_t>()) + 1023) & ~1023u;
  stages.barriers = stages.tiles + p.stages * 2 * kTileBytes;
  const int warpgroup = static_cast<int>(threadIdx.x / 128);
  if (threadIdx.x == 0) {
    PrefetchMap(a);
    PrefetchMap(b);
    for (int i = 0; i < p.stages; ++i) {
      BarrierInit(stages.full(i), 1);
      BarrierInit(stages.empty(i), kConsumers * 4);  // one arrival a warp
    }
    BarrierInitFence();
  }
  __syncthreads();
  const GroupedSchedule schedule(p.offsets, p.groups, p.rows, kAcrossA, kBlockM, (p.m + kBlockM - 1) / kBlockM,
                                 (p.n + kBlockN - 1) / kBlockN);
  if (warpgroup == kConsumers) {
    GiveUpRegisters<72>();
    if (threadIdx.x == kConsumers * 128) Produce<kAcrossA, kAcrossB>(p, a, b, stages, schedule);
  } else {
    TakeRegisters<216>();
    Consume<kAcrossA, kAcrossB>(p, stages, warpgroup, schedule);
  }
}

template <bool kAcrossA, bool kAcrossB>
void Launch(const GroupedCall& call, const BF16Params& p, cudaStream_t stream) {
  const CUtensorMap a = MakeTensorMap(call.a, DType::kBF16, kBlockK, kAcrossA ? kBlockK : kBlockM);
  const CUtensorMap b = MakeTensorMap(call.b, DType::kBF16, kBlockK, kAcrossB ? kBlockK : kBlockN);
  LaunchKernel(GroupedBF16Kernel<kAcrossA, kAcrossB>, dim3(static_cast<unsigned>(call.config.grid)), kBlockThreads,
               call.config.stages.shared_bytes(), stream, a, b, p);
}

}  // namespace

void LaunchGroupedBF16(const GroupedCall& call, cudaStream_t stream) {
  const ProductDescription& d = call.description;
  BF16Params p;
  p.offsets = call.offsets;
  p.groups = static_cast<int>(d.groups);
  p.rows = static_cast<int>(d.by_tokens() ? d.k : d.m);
  p.m = static_cast<int>(d.m), p.n = static_cast<int>(d.n), p.k = static_cast<int>(d.k);
  p.c_group_rows = static_cast<int>(call.c_group_rows);
  p.stages = call.config.stages.stages;
  p.c = TargetOf(call);
  switch (d.layout) {
    case GemmLayout::kNT: return Launch<false, false>(call, p, stream);
    case GemmLayout::kNN: return Launch<false, true>(call, p, stream);
    case GemmLayout::kTN: return Launch<true, true>(call, p, stream);
  }
}

}  // namespace shoestring::cuda
