// Grouped products of FP8 operands on Hopper's tensor cores: wgmma out of tiles that the bulk copy engine brings, sums
// of 128 along k promoted to f32 with the scales of both tiles (V3 report, section 3.3.2).
//
// A block has three warpgroups. One fills stages of shared memory (tiles by the copy engine, scales word by word); two
// multiply, 64 rows of c each, and promote. Barriers with a phase bit hand the stages to and fro: `full` ends when both
// tiles and all scales of a stage are there, `empty` when both warpgroups have read it.
#include <cuda.h>

#include "kernels/cuda/gemm_tensor_map.h"
#include "kernels/cuda/gemm_wgmma.cuh"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/grouped_gemm_schedule.h"
#include "kernels/cuda/grouped_gemm_store.cuh"
#include "kernels/cuda/kernel_launch.cuh"

namespace shoestring::cuda {
namespace {

constexpr int kConsumers = 2;       // warpgroups that multiply
constexpr int kStepBytes = 32;      // of k in one instruction
constexpr int kFetchingLanes = 32;  // that copy scales

struct Fp8Params {
  const int32_t* offsets;
  int groups;
  int rows;  // without offsets
  int m, n, k;
  int c_group_rows;
  int stages;
  ScaleSource a_scales, b_scales;
  StoreTarget c;
};

// Blocks of k of a tile.
template <bool kByTokens>
__device__ int BlocksOf(const Fp8Params& p, const GroupedTile& t) {
  return ((kByTokens ? t.count : p.k) + kFp8Interval - 1) / kFp8Interval;
}

// Where a tile of c finds its operands.
struct TileSpan {
  int blocks;                        // of k
  int x, a_y, b_y;                   // corners of the first boxes
  int a_outers, b_outers;            // rows of a and columns of b, counted from the tile's first, that have scales
  const float *a_scales, *b_scales;  // of the first block
};

template <bool kByTokens>
__device__ TileSpan SpanOf(const Fp8Params& p, const GroupedTile& t) {
  TileSpan s;
  s.blocks = BlocksOf<kByTokens>(p, t);
  const int64_t m = t.m_tile * kBlockM;
  if (kByTokens) {
    const int64_t block = p.offsets == nullptr ? 0 : t.first / kFp8Interval + t.group;  // SegmentScaleRow
    const int n = t.n_tile * kBlockN;
    s.x = static_cast<int>(block * kFp8Interval);
    s.a_y = static_cast<int>(m);
    s.b_y = n;
    s.a_outers = p.m - static_cast<int>(m);
    s.b_outers = p.n - n;
    s.a_scales = p.a_scales.data + block * p.a_scales.strides.block + m * p.a_scales.strides.outer;
    s.b_scales = p.b_scales.data + block * p.b_scales.strides.block + n * p.b_scales.strides.outer;
  } else {
    s.x = 0;
    s.a_y = static_cast<int>(t.first + m);
    s.b_y = t.group * p.n + t.n_tile * kBlockN;
    s.a_outers = t.count - static_cast<int>(m);
    s.b_outers = 1;
    s.a_scales = p.a_scales.data + s.a_y * p.a_scales.strides.outer;
    s.b_scales = p.b_scales.data + t.group * p.b_scales.strides.group + t.n_tile * p.b_scales.strides.outer;
  }
  return s;
}

// Shared addresses of a stage and its barriers; the layout is StageLayout's.
struct Stages {
  uint32_t tiles;  // a multiple of 1,024
  uint32_t barriers;
  int count;
  static constexpr uint32_t kTileBytes = kBlockM * kBlockBytesK;
  static constexpr uint32_t kScaleBytes = kBlockM * 4;

  __device__ uint32_t a(int stage) const { return tiles + stage * 2 * kTileBytes; }
  __device__ uint32_t b(int stage) const { return a(stage) + kTileBytes; }
  __device__ uint32_t a_scales(int stage) const { return tiles + count * 2 * kTileBytes + stage * 2 * kScaleBytes; }
  __device__ uint32_t b_scales(int stage) const { return a_scales(stage) + kScaleBytes; }
  __device__ uint32_t full(int stage) const { return barriers + stage * 16; }
  __device__ uint32_t empty(int stage) const { return barriers + stage * 16 + 8; }
};

__device__ Stages StagesIn(uint8_t* shared, int count) {
  Stages s;
  s.count = count;
  s.tiles = (SharedAddress(shared) + 1023) & ~1023u;
  s.barriers = s.tiles + count * 2 * (Stages::kTileBytes + Stages::kScaleBytes);
  return s;
}

// Copies 128 scales, four a lane; past the last one the last is repeated, for rows of c that nobody stores.
__device__ void FetchScales(const float* from, int64_t stride, int count, uint32_t to) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int i = lane; i < kBlockM; i += 32) CopyWord(to + i * 4, from + (i < count ? i : count - 1) * stride);
}

template <bool kByTokens>
__device__ void Produce(const Fp8Params& p, const CUtensorMap& a, const CUtensorMap& b, const Stages& stages,
                        GroupedSchedule schedule) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  PipelineState at;
  GroupedTile tile;
  for (int index = static_cast<int>(blockIdx.x); schedule.At(index, &tile); index += static_cast<int>(gridDim.x)) {
    TileSpan s = SpanOf<kByTokens>(p, tile);
    for (int block = 0; block < s.blocks; ++block) {
      BarrierWait(stages.empty(at.stage), at.phase ^ 1);
      const uint32_t full = stages.full(at.stage);
      if (lane == 0) {
        BarrierExpect(full, 2 * Stages::kTileBytes);
        CopyBox(stages.a(at.stage), a, full, s.x, s.a_y);
        CopyBox(stages.b(at.stage), b, full, s.x, s.b_y);
      }
      FetchScales(s.a_scales, p.a_scales.strides.outer, s.a_outers, stages.a_scales(at.stage));
      if (kByTokens) {
        FetchScales(s.b_scales, p.b_scales.strides.outer, s.b_outers, stages.b_scales(at.stage));
      } else if (lane == 0) {
        CopyWord(stages.b_scales(at.stage), s.b_scales);
      }
      CopyWordsArrive(full);
      s.x += kFp8Interval;
      s.a_scales += p.a_scales.strides.block;
      s.b_scales += p.b_scales.strides.block;
      at.Next(stages.count);
    }
  }
}

template <DType kTypeOfA>
__device__ void Multiply(WarpgroupSum& sum, uint64_t a, uint64_t b, int add) {
  if constexpr (kTypeOfA == DType::kE4M3) {
    MultiplyE4M3E4M3(sum, a, b, add);
  } else {
    MultiplyE5M2E4M3(sum, a, b, add);
  }
}

// One block of k: sum = a b of a stage.
template <DType kTypeOfA>
__device__ void MultiplyStage(const Stages& stages, int stage, int consumer, WarpgroupSum& sum) {
  const uint32_t a = stages.a(stage) + consumer * 64 * kBlockBytesK;
  const uint32_t b = stages.b(stage);
  HoldSum(sum);
  WarpgroupArrive();
#pragma unroll
  for (int step = 0; step < kBlockBytesK / kStepBytes; ++step) {
    Multiply<kTypeOfA>(sum, TileDescriptor(a + step * kStepBytes, 0, 1024),
                       TileDescriptor(b + step * kStepBytes, 0, 1024), step);
  }
  WarpgroupCommit();
  HoldSum(sum);
  WarpgroupWait<0>();
  HoldSum(sum);
}

// acc = fma(sum, scale_a * scale_b, acc): one scale for all columns of b.
__device__ void Promote(const WarpgroupSum& sum, float above, float below, WarpgroupSum& acc) {
#pragma unroll
  for (int i = 0; i < 64; ++i) acc.d[i] = __fmaf_rn(sum.d[i], i % 4 < 2 ? above : below, acc.d[i]);
}

// The same, with a scale a column of b, which are read where they lie.
__device__ void PromoteByColumn(const WarpgroupSum& sum, float above, float below, uint32_t columns,
                                WarpgroupSum& acc) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const float2 b = LoadSharedPair(columns + 8 * i * 4);
    acc.d[4 * i] = __fmaf_rn(sum.d[4 * i], __fmul_rn(above, b.x), acc.d[4 * i]);
    acc.d[4 * i + 1] = __fmaf_rn(sum.d[4 * i + 1], __fmul_rn(above, b.y), acc.d[4 * i + 1]);
    acc.d[4 * i + 2] = __fmaf_rn(sum.d[4 * i + 2], __fmul_rn(below, b.x), acc.d[4 * i + 2]);
    acc.d[4 * i + 3] = __fmaf_rn(sum.d[4 * i + 3], __fmul_rn(below, b.y), acc.d[4 * i + 3]);
  }
}

template <DType kTypeOfA, bool kByTokens>
__device__ void Consume(const Fp8Params& p, const Stages& stages, int consumer, GroupedSchedule schedule) {
  const int thread = static_cast<int>(threadIdx.x % 128);
  const int lane = thread % 32;
  const int row = consumer * 64 + SumRow(thread, 0);  // of the tile; the second one lies 8 below
  PipelineState at;
  GroupedTile tile;
  WarpgroupSum sum, acc;
  for (int index = static_cast<int>(blockIdx.x); schedule.At(index, &tile); index += static_cast<int>(gridDim.x)) {
    const int blocks = BlocksOf<kByTokens>(p, tile);
#pragma unroll
    for (int i = 0; i < 64; ++i) acc.d[i] = 0;
    for (int block = 0; block < blocks; ++block) {
      BarrierWait(stages.full(at.stage), at.phase);
      const uint32_t rows = stages.a_scales(at.stage) + row * 4;
      const uint32_t columns = stages.b_scales(at.stage);
      float above = LoadShared(rows), below = LoadShared(rows + 32);
      if constexpr (kByTokens) {
        MultiplyStage<kTypeOfA>(stages, at.stage, consumer, sum);
        PromoteByColumn(sum, above, below, columns + lane % 4 * 8, acc);
        __syncwarp();
        if (lane == 0) BarrierArrive(stages.empty(at.stage));
      } else {
        const float block_scale = LoadShared(columns);
        above = __fmul_rn(above, block_scale);
        below = __fmul_rn(below, block_scale);
        MultiplyStage<kTypeOfA>(stages, at.stage, consumer, sum);
        __syncwarp();
        if (lane == 0) BarrierArrive(stages.empty(at.stage));
        Promote(sum, above, below, acc);
      }
      at.Next(stages.count);
    }
    // No tokens, no operation; but an expert's gradient that is assigned exists.
    if (blocks > 0 || !p.c.accumulate) {
      const int64_t before = kByTokens ? int64_t{tile.group} * p.c_group_rows : tile.first;
      StoreSum(p.c, before + tile.m_tile * kBlockM + consumer * 64, before + (kByTokens ? p.m : tile.count),
               tile.n_tile * kBlockN, acc);
    }
  }
}

template <DType kTypeOfA, bool kByTokens>
__global__ void __launch_bounds__(kBlockThreads, 1)
    GroupedFp8Kernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, const Fp8Params p) {
  const Stages stages = StagesIn(DynamicShared<uint8_t>(), p.stages);
  const int warpgroup = static_cast<int>(threadIdx.x / 128);
  if (threadIdx.x == 0) {
    PrefetchMap(a);
    PrefetchMap(b);
    for (int i = 0; i < stages.count; ++i) {
      BarrierInit(stages.full(i), 1 + kFetchingLanes);
      BarrierInit(stages.empty(i), kConsumers * 4);  // one arrival a warp
    }
    BarrierInitFence();
  }
  __syncthreads();
  const GroupedSchedule schedule(p.offsets, p.groups, p.rows, kByTokens, kBlockM, (p.m + kBlockM - 1) / kBlockM,
                                 (p.n + kBlockN - 1) / kBlockN);
  if (warpgroup == kConsumers) {
    GiveUpRegisters<72>();
    if (threadIdx.x / 32 == kConsumers * 4) Produce<kByTokens>(p, a, b, stages, schedule);
  } else {
    TakeRegisters<216>();
    Consume<kTypeOfA, kByTokens>(p, stages, warpgroup, schedule);
  }
}

template <DType kTypeOfA, bool kByTokens>
void Launch(const GroupedCall& call, const CUtensorMap& a, const CUtensorMap& b, const Fp8Params& p,
            cudaStream_t stream) {
  LaunchKernel(GroupedFp8Kernel<kTypeOfA, kByTokens>, dim3(static_cast<unsigned>(call.config.grid)), kBlockThreads,
               call.config.stages.shared_bytes(), stream, a, b, p);
}

}  // namespace

void LaunchGroupedFp8(const GroupedCall& call, cudaStream_t stream) {
  const ProductDescription& d = call.description;
  const CUtensorMap a = MakeTensorMap(call.a, DType::kU8, kBlockBytesK, kBlockM);
  const CUtensorMap b = MakeTensorMap(call.b, DType::kU8, kBlockBytesK, kBlockN);
  Fp8Params p;
  p.offsets = call.offsets;
  p.groups = static_cast<int>(d.groups);
  p.rows = static_cast<int>(d.by_tokens() ? d.k : d.m);
  p.m = static_cast<int>(d.m), p.n = static_cast<int>(d.n), p.k = static_cast<int>(d.k);
  p.c_group_rows = static_cast<int>(call.c_group_rows);
  p.stages = call.config.stages.stages;
  p.a_scales = call.a.scales;
  p.b_scales = call.b.scales;
  p.c = TargetOf(call);
  const bool e4m3 = d.a_type == DType::kE4M3;
  if (d.by_tokens()) {
    e4m3 ? Launch<DType::kE4M3, true>(call, a, b, p, stream) : Launch<DType::kE5M2, true>(call, a, b, p, stream);
  } else {
    e4m3 ? Launch<DType::kE4M3, false>(call, a, b, p, stream) : Launch<DType::kE5M2, false>(call, a, b, p, stream);
  }
}

}  // namespace shoestring::cuda
