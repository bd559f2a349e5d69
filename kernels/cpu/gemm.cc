// The GEMM driver: cuts C into tasks, and inside a task packs blocks and calls the register-tile kernels.
#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/gemm_scales.h"
#include "kernels/limits.h"

namespace shoestring {
namespace {

// Widths of a task's part of C. A packed block of B (kGemmBlockDwords x columns) stays in the second-level cache, and
// so does the f32 partial sum that a bf16 C needs when K is longer than a block.
constexpr int64_t kMaxColumns = 512;
constexpr int64_t kMaxRows = 1024;
constexpr int64_t kMaxPartialColumns = 256;
constexpr int64_t kMaxPartialRows = 504;  // a multiple of every tile height, else cutting on tiles could exceed it
// Tiles packed together when K runs down A.
constexpr int64_t kTilesAtOnce = 4;
static_assert(kTilesAtOnce * kGemmColumnsTile >= kGemmMaxRows * kGemmRowStride);
// Intervals of K in a packed block of FP8 operands at most.
constexpr int64_t kMaxIntervals = 24;
constexpr int64_t kMaxRowsAtOnce = kTilesAtOnce * kGemmMaxRows;
// Multiply-adds below which a task is too small to be worth waking a thread.
constexpr int64_t kTaskWork = int64_t{1} << 18;
// Packing one element costs about as much as this many multiply-adds.
constexpr double kPackCost = 12;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

const void* Advance(const void* p, DType type, int64_t elements) {
  return static_cast<const char*>(p) + elements * SizeOf(type);
}
void* Advance(void* p, DType type, int64_t elements) { return static_cast<char*>(p) + elements * SizeOf(type); }

// Start of part i when `size` is cut into `parts` nearly equal parts on multiples of `unit`.
int64_t PartStart(int64_t size, int64_t parts, int64_t i, int64_t unit) {
  return std::min(size, CeilDiv(size, unit) * i / parts * unit);
}

// Elements of K that are packed together: of FP8 operands whole intervals.
int64_t BlockElements(const GemmCall& call, const GemmKernels& kernels) {
  const int64_t most = kGemmBlockDwords * kernels.k_step;
  if (!IsQuantised(call.in_type)) return most;
  const int64_t interval = call.fp8.how.interval;
  if (interval % kernels.k_step != 0) return interval;  // the next one starts in the middle of a dword
  return std::min(most / interval, kMaxIntervals) * interval;
}

bool NeedsPartial(const GemmCall& call, const GemmKernels& kernels) {
  const bool through_c = call.out_type == DType::kF32 && !call.accumulate;  // C itself holds the partial sum
  return !through_c && call.k > BlockElements(call, kernels);
}

DType TypeOfB(const GemmCall& call) { return IsQuantised(call.in_type) ? call.fp8.b_type : call.in_type; }

void CheckFp8(const GemmCall& call) {
  const Fp8Call& fp8 = call.fp8;
  CHECK(call.in_type == DType::kE4M3 || call.in_type == DType::kE5M2);
  CHECK(fp8.b_type == DType::kE4M3 || fp8.b_type == DType::kE5M2);
  CHECK_GE(fp8.how.interval, 1);
  static_assert(kMaxPromotionInterval <= kGemmBlockDwords);
  CHECK_LE(fp8.how.interval, kMaxPromotionInterval);
  const int64_t a_tile = call.layout == GemmLayout::kTN ? fp8.a.tile.rows : fp8.a.tile.cols;
  const int64_t b_tile = call.layout == GemmLayout::kNT ? fp8.b.tile.cols : fp8.b.tile.rows;
  CHECK(a_tile % fp8.how.interval == 0 || a_tile >= call.k);
  CHECK(b_tile % fp8.how.interval == 0 || b_tile >= call.k);
}

void CheckCall(const GemmCall& call) {
  CHECK_GE(call.m, 0);
  CHECK_GE(call.n, 0);
  CHECK_GE(call.k, 0);
  CHECK_GE(call.lda, call.layout == GemmLayout::kTN ? call.m : call.k);
  CHECK_GE(call.ldb, call.layout == GemmLayout::kNT ? call.k : call.n);
  CHECK_GE(call.ldc, call.n);
  if (IsQuantised(call.in_type)) {
    CheckFp8(call);
  } else {
    CHECK(call.in_type == DType::kF32 || call.in_type == DType::kBF16);
  }
  CHECK(call.out_type == DType::kF32 || (call.out_type == DType::kBF16 && !call.accumulate));
}

void SetToZero(const GemmCall& call) {
  for (int64_t row = 0; row < call.m; ++row) {
    std::memset(Advance(call.c, call.out_type, row * call.ldc), 0, call.n * SizeOf(call.out_type));
  }
}

void PackColumns(const GemmCall& call, const GemmKernels& kernels, const PackTable& table, const GemmPart& part,
                 int64_t k0, int64_t k, float* to) {
  const bool transposed = call.layout == GemmLayout::kNT;
  const auto pack = transposed ? table.panel_transposed : table.panel;
  const int64_t dwords = CeilDiv(k, kernels.k_step);
  for (int64_t j = 0; j < part.columns; j += kernels.columns()) {
    const int columns = static_cast<int>(std::min<int64_t>(kernels.columns(), part.columns - j));
    const int64_t n = part.column + j;
    const int64_t start = transposed ? n * call.ldb + k0 : k0 * call.ldb + n;
    pack(Advance(call.b, TypeOfB(call), start), call.ldb, k, columns, columns > 16 ? 2 : 1, to + j * dwords);
  }
}

// Packs `tiles` tiles that make up `rows` rows of A.
void PackTiles(const GemmCall& call, const GemmKernels& kernels, int64_t row, int64_t rows, int64_t tiles, int64_t k0,
               int64_t k, float* to) {
  if (call.layout == GemmLayout::kTN) {
    const void* from = Advance(call.a, call.in_type, k0 * call.lda + row);
    const int64_t readable = std::min(call.m - row, rows + 16);
    kernels.pack->tiles(from, call.lda, k, static_cast<int>(rows), static_cast<int>(readable), static_cast<int>(tiles),
                        kGemmColumnsTile, to);
    return;
  }
  CHECK_EQ(tiles, 1);
  kernels.pack->rows(Advance(call.a, call.in_type, row * call.lda + k0), call.lda, static_cast<int>(rows), k, to);
}

// What a block of K does to C: only the last one writes it, unless C itself holds the partial sum.
TileOut BlockOut(const GemmCall& call, const GemmPart& part, float* partial, bool first, bool last) {
  TileOut out = {};
  out.partial = partial;
  out.partial_stride = kMaxPartialColumns;
  out.stride = call.ldc;
  void* c = Advance(call.c, call.out_type, part.row * call.ldc + part.column);
  if (call.out_type == DType::kBF16) {
    if (last) out.bf16 = static_cast<uint16_t*>(c);
  } else if (call.accumulate) {
    if (last) out.f32 = static_cast<float*>(c);
    out.add_f32 = true;
  } else {
    out.f32 = static_cast<float*>(c);
    out.partial = out.f32;
    out.partial_stride = call.ldc;
  }
  if (!first) out.earlier = out.partial;
  const auto smallest = [](DType type) { return type == DType::kE4M3 ? 0x1p-6f : 0x1p-14f; };
  out.a_smallest = smallest(call.in_type);
  out.b_smallest = smallest(call.fp8.b_type);
  out.earlier_stride = out.partial_stride;
  return out;
}

// One tile of rows times every packed panel.
void MultiplyTile(const GemmKernels& kernels, TileLayout layout, int rows, int64_t dwords, const float* tile,
                  const float* panels, int64_t columns, const TileOut& tile_out) {
  for (int64_t j = 0; j < columns; j += kernels.columns()) {
    TileOut out = tile_out.At(0, j);
    out.columns = static_cast<int>(std::min<int64_t>(kernels.columns(), columns - j));
    kernels.micro->at[layout][out.columns > 16 ? 2 : 1][rows](dwords, tile, panels + j * dwords, out);
  }
}

// The same of FP8 operands: one interval of K after the other, whose sums meet in a buffer that stays in the
// first-level cache.
struct IntervalScales {
  float rows[kMaxIntervals][kMaxRowsAtOnce];
  float columns[kMaxIntervals][kMaxColumns];
};
void MultiplyIntervals(const GemmKernels& kernels, TileLayout layout, int rows, int64_t dwords, int64_t interval,
                       const float* tile, int64_t tile_row, const float* panels, int64_t columns,
                       const IntervalScales& scales, float* sums, const TileOut& tile_out) {
  const int64_t tile_step = layout == kTileColumns ? 16 : 1;
  for (int64_t j = 0; j < columns; j += kernels.columns()) {
    const TileOut whole = tile_out.At(0, j);
    const int width = static_cast<int>(std::min<int64_t>(kernels.columns(), columns - j));
    const int vectors = width > 16 ? 2 : 1;
    for (int64_t k = 0, i = 0; k < dwords; k += interval, ++i) {
      const bool last = k + interval >= dwords;
      TileOut out = whole;
      out.columns = width;
      out.row_scales = scales.rows[i] + tile_row;
      out.column_scales = scales.columns[i] + j;
      if (i > 0) {
        out.earlier = sums;
        out.earlier_stride = kernels.columns();
      }
      if (!last) {
        out.f32 = nullptr;
        out.bf16 = nullptr;
        out.partial = sums;
        out.partial_stride = kernels.columns();
      }
      kernels.micro->at[layout][vectors][rows](std::min(interval, dwords - k), tile + k * tile_step,
                                               panels + j * dwords + k * vectors * 16, out);
    }
  }
}

}  // namespace

struct alignas(64) CpuGemm::Scratch {
  float sums[kGemmMaxRows * 32];
  IntervalScales scales;
  float tiles[kTilesAtOnce * kGemmColumnsTile];  // or one tile of rows
  float panels[kGemmBlockDwords * kMaxColumns];
  float partial[kMaxPartialRows * kMaxPartialColumns];
};

void CpuGemm::ScratchDeleter::operator()(Scratch* scratch) const { delete scratch; }

const LevelKernels& KernelsOf(Isa isa) {
  CHECK(IsaSupported(isa));
  switch (isa) {
    case Isa::kPortable: return PortableGemmKernels();
    case Isa::kAvx2: return Avx2GemmKernels();
    case Isa::kAvx512: return Avx512GemmKernels();
    case Isa::kAvx512Bf16: return Avx512Bf16GemmKernels();
  }
  CHECK(false);
  return PortableGemmKernels();
}

CpuGemm::CpuGemm(ThreadPool* pool, Isa isa) : pool_(pool), isa_(isa), level_(KernelsOf(isa)) {
  for (int i = 0; i < pool->threads(); ++i)
    scratch_.emplace_back(new Scratch);  // pages that a small product never touches are never taken
  plans_.reserve(1024);
}

CpuGemm::Kernels CpuGemm::KernelsFor(const GemmCall& call) const {
  if (call.in_type == DType::kF32) return {level_.f32, level_.f32.pack};
  if (!IsQuantised(call.in_type)) return {level_.bf16, level_.bf16.pack};
  const bool short_sums = call.fp8.how.hopper;
  Kernels kernels = {short_sums ? level_.f32 : level_.bf16, nullptr};
  if (short_sums) kernels.micro = level_.short_micro;
  const PackTable* e4m3 = short_sums ? level_.e4m3_floats : level_.e4m3;
  const PackTable* e5m2 = short_sums ? level_.e5m2_floats : level_.e5m2;
  kernels.pack = call.in_type == DType::kE4M3 ? e4m3 : e5m2;
  kernels.pack_b = call.fp8.b_type == DType::kE4M3 ? e4m3 : e5m2;
  return kernels;
}

CpuGemm::Plan CpuGemm::SmallestPlan(const GemmCall& call) const {
  const bool partial = NeedsPartial(call, KernelsFor(call));
  return {call, CeilDiv(call.m, partial ? kMaxPartialRows : kMaxRows),
          CeilDiv(call.n, partial ? kMaxPartialColumns : kMaxColumns), 0};
}

CpuGemm::Plan CpuGemm::BestPlan(const GemmCall& call) const {
  const Plan smallest = SmallestPlan(call);
  const int64_t threads = pool_->threads();
  const int64_t wanted = std::min(4 * threads, call.m * call.n * call.k / kTaskWork);
  Plan best = smallest;
  double best_time = 0;
  for (int64_t r = smallest.row_chunks; r == smallest.row_chunks || r <= CeilDiv(call.m, 28); ++r) {
    if (r > smallest.row_chunks && r * smallest.column_chunks > wanted) break;
    for (int64_t c = smallest.column_chunks; c == smallest.column_chunks || c <= CeilDiv(call.n, 32); ++c) {
      if (c > smallest.column_chunks && r * c > wanted) break;
      // In multiply-adds of one task per step of K: the product, packing its rows and columns, and a third of a task
      // that everybody waits for at the end when a thread is disturbed.
      const double rows = static_cast<double>(call.m) / r, columns = static_cast<double>(call.n) / c;
      const double task = rows * columns + kPackCost * (rows + columns);
      const double time = (static_cast<double>(CeilDiv(r * c, threads)) + 0.3) * task;
      if (best_time == 0 || time < best_time) {
        best_time = time;
        best.row_chunks = r;
        best.column_chunks = c;
      }
    }
  }
  return best;
}

CpuGemm::Plan CpuGemm::PlanOfGroup(const GemmCall& call, int64_t tasks_wanted) const {
  Plan plan = SmallestPlan(call);
  // Columns first: B is packed once a task, so cutting rows repeats that work; cutting columns only repeats the copy of
  // A.
  while (plan.row_chunks * plan.column_chunks < tasks_wanted) {
    if (call.n > plan.column_chunks * 128) {
      ++plan.column_chunks;
    } else if (call.m > plan.row_chunks * 128) {
      ++plan.row_chunks;
    } else {
      break;
    }
  }
  return plan;
}

void CpuGemm::Run(const GemmCall& call) {
  CheckCall(call);
  if (call.m == 0 || call.n == 0) return;
  if (call.k == 0) {
    if (!call.accumulate) SetToZero(call);
    return;
  }
  plans_.clear();
  plans_.push_back(pool_->threads() == 1 ? SmallestPlan(call) : BestPlan(call));
  RunPlans();
}

void CpuGemm::RunGrouped(const GroupedGemmCall& call) {
  const GemmCall& each = call.each;
  const bool by_k = each.layout == GemmLayout::kTN;
  const int64_t tokens = call.groups == 0 ? 0 : call.offsets[call.groups] - call.offsets[0];
  const int64_t threads = pool_->threads();
  plans_.clear();
  for (int g = 0; g < call.groups; ++g) {
    const int64_t start = call.offsets[g], count = call.offsets[g + 1] - start;
    CHECK_GE(count, 0);
    if (count == 0 && !by_k) continue;
    GemmCall one = each;
    (by_k ? one.k : one.m) = count;
    one.a = Advance(each.a, each.in_type, start * each.lda);
    one.b = Advance(each.b, each.in_type, by_k ? start * each.ldb : g * call.stride);
    one.c = Advance(each.c, each.out_type, by_k ? g * call.stride : start * each.ldc);
    if (IsQuantised(each.in_type)) {
      const auto tokens_at = [&](const Tile& tile) { return tile.rows == 1 ? start : SegmentScaleRow(tile, start, g); };
      one.fp8.a = each.fp8.a.Below(tokens_at(each.fp8.a.tile));
      one.fp8.b = each.fp8.b.Below(by_k ? tokens_at(each.fp8.b.tile) : g * call.scale_rows);
    }
    CheckCall(one);
    if (one.m == 0 || one.n == 0 || one.k == 0) {
      if (one.k == 0 && !one.accumulate) SetToZero(one);
      continue;
    }
    // A group is cut in proportion to its share of the tokens, so one crowded expert does not hold up the call.
    plans_.push_back(PlanOfGroup(one, threads == 1 ? 1 : CeilDiv(4 * threads * count, tokens)));
  }
  RunPlans();
}

void CpuGemm::RunPlans() {
  int64_t tasks = 0;
  for (Plan& plan : plans_) {
    plan.first_task = tasks;
    tasks += plan.row_chunks * plan.column_chunks;
  }
  pool_->ParallelFor(tasks, [this](int64_t task, int worker) {
    auto plan =
        std::upper_bound(plans_.begin(), plans_.end(), task, [](int64_t t, const Plan& p) { return t < p.first_task; });
    --plan;
    RunTask(*plan, task - plan->first_task, *scratch_[worker]);
  });
}

void CpuGemm::RunTask(const Plan& plan, int64_t task, Scratch& scratch) const {
  const GemmCall& call = plan.call;
  const Kernels kernels = KernelsFor(call);
  // Row chunks run fastest, so that neighbouring tasks share B in the outer caches.
  const int64_t i = task % plan.row_chunks, j = task / plan.row_chunks;
  GemmPart part;
  part.row = PartStart(call.m, plan.row_chunks, i, kernels.rows);
  part.rows = PartStart(call.m, plan.row_chunks, i + 1, kernels.rows) - part.row;
  part.column = PartStart(call.n, plan.column_chunks, j, kernels.columns());
  part.columns = PartStart(call.n, plan.column_chunks, j + 1, kernels.columns()) - part.column;
  CHECK_LE(part.columns, kMaxColumns);
  CHECK(!NeedsPartial(call, kernels) || (part.rows <= kMaxPartialRows && part.columns <= kMaxPartialColumns));
  const int64_t block = BlockElements(call, kernels);
  for (int64_t k0 = 0; k0 < call.k; k0 += block) {
    const int64_t k = std::min(block, call.k - k0);
    PackColumns(call, kernels, *kernels.pack_b, part, k0, k, scratch.panels);
    RunBlock(call, kernels, part, k0, k, scratch);
  }
}

void CpuGemm::RunBlock(const GemmCall& call, const Kernels& kernels, const GemmPart& part, int64_t k0, int64_t k,
                       Scratch& scratch) {
  const TileOut out = BlockOut(call, part, scratch.partial, k0 == 0, k0 + k == call.k);
  const TileLayout layout = call.layout == GemmLayout::kTN ? kTileColumns : kTileRows;
  const int64_t at_once = layout == kTileColumns ? kTilesAtOnce : 1;
  const int64_t dwords = CeilDiv(k, kernels.k_step), tiles = CeilDiv(part.rows, kernels.rows);
  const bool scaled = IsQuantised(call.in_type);
  const int64_t interval = call.fp8.how.interval;
  for (int64_t i = 0; scaled && i * interval < k; ++i) {
    ColumnScales(call, part.column, part.columns, k0 + i * interval, scratch.scales.columns[i]);
  }
  for (int64_t first = 0; first < tiles; first += at_once) {
    const int64_t count = std::min(at_once, tiles - first);
    const int64_t row = TileStart(part.rows, tiles, first), rows = TileStart(part.rows, tiles, first + count) - row;
    PackTiles(call, kernels, part.row + row, rows, count, k0, k, scratch.tiles);
    for (int64_t i = 0; scaled && i * interval < k; ++i) {
      RowScales(call, part.row + row, rows, k0 + i * interval, scratch.scales.rows[i]);
    }
    for (int64_t t = 0; t < count; ++t) {
      const int64_t start = TileStart(rows, count, t);
      const int height = static_cast<int>(TileStart(rows, count, t + 1) - start);
      const float* tile = scratch.tiles + t * kGemmColumnsTile;
      const TileOut tile_out = out.At(row + start, 0);
      if (scaled) {
        MultiplyIntervals(kernels, layout, height, dwords, CeilDiv(interval, kernels.k_step), tile, start,
                          scratch.panels, part.columns, scratch.scales, scratch.sums, tile_out);
      } else {
        MultiplyTile(kernels, layout, height, dwords, tile, scratch.panels, part.columns, tile_out);
      }
    }
  }
}

}  // namespace shoestring
