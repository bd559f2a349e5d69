// Tests of what the GPU's grouped kernels do in which order and where it lies, simulated on the CPU: the walk over
// tiles, the hand-over of stages, the layouts of shared memory and registers.
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/cuda/attention_config.h"
#include "kernels/cuda/gemm_config.h"
#include "kernels/cuda/gemm_tile_layout.h"
#include "kernels/cuda/grouped_gemm_schedule.h"

namespace shoestring::cuda {
namespace {

int CeilDiv(int a, int b) { return (a + b - 1) / b; }

// --- tiles ----------------------------------------------------------------------------------------------------------

using TileId = std::tuple<int, int, int>;  // group, row of tiles, column of tiles

// Walks all blocks of a grid; every tile of `want` must come exactly once.
void ExpectEachTileOnce(const std::vector<int32_t>& offsets, bool by_tokens, int block_m, int m_tiles, int n_tiles,
                        int grid) {
  const int groups = static_cast<int>(offsets.size()) - 1;
  std::set<TileId> want;
  for (int g = 0; g < groups; ++g) {
    const int height = by_tokens ? m_tiles : CeilDiv(offsets[g + 1] - offsets[g], block_m);
    for (int m = 0; m < height; ++m) {
      for (int n = 0; n < n_tiles; ++n) want.insert({g, m, n});
    }
  }
  std::set<TileId> got;
  for (int block = 0; block < grid; ++block) {
    GroupedSchedule schedule(offsets.data(), groups, 0, by_tokens, block_m, m_tiles, n_tiles);
    GroupedTile tile;
    int index = block;
    for (; schedule.At(index, &tile); index += grid) {
      ASSERT_TRUE(got.insert({tile.group, tile.m_tile, tile.n_tile}).second) << "twice";
      ASSERT_EQ(tile.first, offsets[tile.group]);
      ASSERT_EQ(tile.count, offsets[tile.group + 1] - offsets[tile.group]);
    }
    EXPECT_FALSE(schedule.At(index + grid, &tile));  // and no more, however often it is asked
  }
  EXPECT_EQ(got, want);
}

TEST(CudaScheduleTest, EveryTileIsMadeExactlyOnce) {
  const Rng rng(9, RngPurpose::kTest, 0);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<int32_t> offsets = {static_cast<int32_t>(rng.Below(trial * 100, 50))};
    const int groups = 1 + static_cast<int>(rng.Below(trial * 100 + 1, 9));
    for (int g = 0; g < groups; ++g) {
      // A third of the groups are empty, some have very many rows.
      const auto kind = rng.Below(trial * 100 + 2 + g, 6);
      const auto most = kind < 2 ? 1 : kind < 5 ? 300 : 5000;
      offsets.push_back(offsets.back() + static_cast<int32_t>(rng.Below(trial * 100 + 50 + g, most)));
    }
    for (const int grid : {1, 7, 132}) {
      const int n_tiles = 1 + trial % 5;
      ASSERT_NO_FATAL_FAILURE(ExpectEachTileOnce(offsets, false, 128, 0, n_tiles, grid));
      ASSERT_NO_FATAL_FAILURE(ExpectEachTileOnce(offsets, true, 128, 1 + trial % 37, n_tiles, grid));
    }
  }
}

TEST(CudaScheduleTest, OneMatrixNeedsNoOffsets) {
  GroupedSchedule schedule(nullptr, 0, 300, false, 128, 3, 2);
  GroupedTile tile;
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(schedule.At(i, &tile));
    EXPECT_EQ(std::make_tuple(tile.group, tile.first, tile.count), std::make_tuple(0, 0, 300));
    EXPECT_EQ(std::make_tuple(tile.m_tile, tile.n_tile), std::make_tuple(i % 3, i / 3));
  }
  EXPECT_FALSE(schedule.At(6, &tile));
}

// Neighbours in the walk share operands: among 132 tiles in flight at most two bands of rows and few columns.
TEST(CudaScheduleTest, NeighboursShareOperands) {
  const std::vector<int32_t> offsets = {0, 8192};
  GroupedSchedule schedule(offsets.data(), 1, 0, false, 128, 0, 32);
  std::set<int> rows, columns;
  GroupedTile tile;
  for (int i = 0; i < 132; ++i) {
    ASSERT_TRUE(schedule.At(i, &tile));
    rows.insert(tile.m_tile);
    columns.insert(tile.n_tile);
  }
  EXPECT_LE(rows.size(), 16);
  EXPECT_LE(columns.size(), 9);
}

// --- stages ---------------------------------------------------------------------------------------------------------

// A barrier of shared memory by the words of the PTX ISA: a phase ends when all arrivals are there.
class Barrier {
 public:
  explicit Barrier(int arrivals) : arrivals_(arrivals), left_(arrivals) {}
  void Arrive() {
    ASSERT_GT(left_, 0);
    if (--left_ > 0) return;
    left_ = arrivals_;
    ++phases_ended_;
  }
  // Whether a wait for the phase of that parity returns.
  bool Passes(uint32_t parity) const { return phases_ended_ % 2 != parity; }

 private:
  int arrivals_;
  int left_;
  uint32_t phases_ended_ = 0;
};

// One producer and two consumers that take turns at random, as the warpgroups of grouped_gemm_fp8.cu do; each loaded
// block must be read by both consumers, in order, before it is overwritten.
void RunPipeline(int stages, int blocks, uint64_t seed) {
  std::vector<Barrier> full(stages, Barrier(1)), empty(stages, Barrier(2));
  std::vector<int> loaded(stages, -1);
  struct Actor {
    PipelineState at;
    int done = 0;
  };
  Actor producer;
  std::array<Actor, 2> consumers;
  const Rng rng(seed, RngPurpose::kTest, 3);
  int steps = 0;
  while (consumers[0].done < blocks || consumers[1].done < blocks) {
    ASSERT_LT(++steps, 1000 * (blocks + 1)) << "nobody can go on";
    const auto who = rng.Below(steps, 3);
    if (who == 2) {
      const int stage = producer.at.stage;
      if (producer.done == blocks || !empty[stage].Passes(producer.at.phase ^ 1)) continue;
      loaded[stage] = producer.done++;
      full[stage].Arrive();
      producer.at.Next(stages);
      continue;
    }
    Actor& consumer = consumers[who];
    const int stage = consumer.at.stage;
    if (consumer.done == blocks || !full[stage].Passes(consumer.at.phase)) continue;
    ASSERT_EQ(loaded[stage], consumer.done) << "not the block that it waited for";
    ++consumer.done;
    empty[stage].Arrive();
    consumer.at.Next(stages);
  }
}

TEST(CudaScheduleTest, StagesAreHandedOverInOrder) {
  for (const int stages : {1, 2, 4, 6}) {
    for (uint64_t seed = 0; seed < 20; ++seed) ASSERT_NO_FATAL_FAILURE(RunPipeline(stages, 57, seed));
  }
}

// --- shared memory and registers ------------------------------------------------------------------------------------

// Where wgmma reads element (row, byte along k) of a K-major tile, by the descriptor's fields.
uint32_t AlongK(uint64_t descriptor, int row, int byte) {
  const auto start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const auto stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  return Swizzle128(start + row / 8 * stride + row % 8 * 128 + byte);
}
// The same of an MN-major tile of 2-byte elements: row `mn` of the result, step k.
uint32_t AcrossK(uint64_t descriptor, int mn, int k) {
  const auto start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const auto leading = static_cast<uint32_t>(descriptor >> 16 & 0x3fff) << 4;
  const auto stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  return Swizzle128(start + mn / 64 * leading + k / 8 * stride + k % 8 * 128 + mn % 64 * 2);
}
// Where the copy engine writes byte `byte` of line `line` of a box whose lines are 128 bytes.
uint32_t Copied(uint32_t box, int line, int byte) { return Swizzle128(box + line * 128 + byte); }

TEST(CudaScheduleTest, DescriptorsReadWhatTheCopyEngineWrote) {
  constexpr uint32_t kTile = 5 * 1024;
  for (int step = 0; step < 4; ++step) {
    for (int consumer = 0; consumer < 2; ++consumer) {
      const uint64_t along = TileDescriptor(kTile + consumer * 64 * 128 + step * 32, 0, 1024);
      for (int row = 0; row < 64; ++row) {
        for (int byte = 0; byte < 32; ++byte) {
          ASSERT_EQ(AlongK(along, row, byte), Copied(kTile, consumer * 64 + row, step * 32 + byte));
        }
      }
    }
    // bf16 across k: boxes of 64 rows of the result, a line a step of k, 8 KiB apart; 16 steps an instruction.
    const uint64_t across = TileDescriptor(kTile + step * 16 * 128, 8192, 1024);
    for (int mn = 0; mn < 128; ++mn) {
      for (int k = 0; k < 16; ++k) {
        ASSERT_EQ(AcrossK(across, mn, k), Copied(kTile + mn / 64 * 8192, step * 16 + k, mn % 64 * 2));
      }
    }
  }
  EXPECT_EQ(TileDescriptor(0, 0, 1024) >> 62, 1u);  // the 128-byte swizzle
}

TEST(CudaScheduleTest, ThreadsHoldEveryElementOnce) {
  std::set<std::pair<int, int>> held;
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < 64; ++i) held.insert({SumRow(thread, i), SumColumn(thread, i)});
  }
  EXPECT_EQ(held.size(), 64 * 128);
  EXPECT_EQ(*held.begin(), std::make_pair(0, 0));
  EXPECT_EQ(*held.rbegin(), std::make_pair(63, 127));
}

// ExchangeInQuad of grouped_gemm_store.cuh: which columns of a pair of groups of eight each lane of a quad ends with.
TEST(CudaScheduleTest, QuadsExchangeToFourNeighbours) {
  for (int lane = 0; lane < 4; ++lane) {
    const int from = 2 * (lane & 1), group = lane >> 1;
    const int at = 8 * group + 4 * (lane & 1);  // StoreBF16Row
    EXPECT_EQ(SumColumn(from, 4 * group), at);
    EXPECT_EQ(SumColumn(from, 4 * group + 1), at + 1);
    EXPECT_EQ(SumColumn(from + 1, 4 * group), at + 2);
    EXPECT_EQ(SumColumn(from + 1, 4 * group + 1), at + 3);
  }
}

TEST(CudaScheduleTest, StagesFitIntoABlock) {
  for (const bool fp8 : {false, true}) {
    const StageLayout layout = StagesOf(fp8);
    EXPECT_EQ(layout.a_bytes % 1024, 0);
    EXPECT_EQ(layout.b_bytes % 1024, 0);
    EXPECT_EQ(layout.bytes(), 2 * 128 * 128 + (fp8 ? 2 * 128 * 4 : 0));
    EXPECT_EQ(layout.stages, 6);
    EXPECT_LE(layout.shared_bytes(), kMaxSharedBytes);
  }
}

// --- attention ------------------------------------------------------------------------------------------------------

TEST(CudaAttentionConfigTest, WhoIsAsked) {
  const AttentionShape v3 = {4096, 4096, 128, 128, 64, 128};
  EXPECT_EQ(CudnnRefusal(v3, ContiguousLayout(v3, true)), "");
  const AttentionShape equal = {4096, 1024, 16, 96, 32, 128};
  EXPECT_EQ(CudnnRefusal(equal, ContiguousLayout(equal, false)), "");
  const auto refusal = [](const AttentionShape& shape, auto change) {
    AttentionLayout layout = ContiguousLayout(shape, true);
    change(layout);
    return CudnnRefusal(shape, layout);
  };
  const auto nothing = [](AttentionLayout&) {};
  EXPECT_EQ(refusal({512, 128, 4, 32, 16, 32}, nothing), "head dimensions 48/32 differ and are not 192/128");
  EXPECT_EQ(refusal({512, 128, 4, 5, 3, 7}, nothing), "head dimensions 8/7 are not multiples of 8");
  EXPECT_EQ(refusal({512, 128, 4, 256, 64, 320}, nothing), "head dimensions 320/320 exceed 256");
  EXPECT_EQ(refusal(v3, [](auto& l) { l.dtype = DType::kF32; }), "it has no plan for f32");
  EXPECT_EQ(refusal(v3, [](auto& l) { l.documents = true; }), "masks of documents are ours");
  EXPECT_EQ(refusal(v3, [](auto& l) { l.d_kv_stride += 4; }), "rows are not a multiple of 16 bytes apart");
  EXPECT_EQ(refusal(v3, [](auto& l) { l.least_alignment_bytes = 8; }),
            "a tensor does not begin at a multiple of 16 bytes");
}

TEST(CudaAttentionConfigTest, OwnKernelsFit) {
  for (const AttentionShape& s :
       {AttentionShape{4096, 4096, 128, 128, 64, 128}, AttentionShape{512, 128, 8, 32, 16, 32},
        AttentionShape{64, 64, 2, 5, 3, 7}, AttentionShape{64, 64, 2, 192, 64, 256}}) {
    EXPECT_EQ(OwnAttentionRefusal(s), "");
    EXPECT_LE(AttentionForwardShared(s), kMaxSharedBytes);
  }
  const AttentionShape wide = {64, 64, 2, 384, 64, 384};
  EXPECT_EQ(OwnAttentionRefusal(wide),
            "head dimensions 448/384 need 328704 bytes of shared memory, and a block has 232448");
}

TEST(CudaAttentionConfigTest, Workspaces) {
  const AttentionShape v3 = {4096, 4096, 128, 128, 64, 128};
  EXPECT_EQ(OwnWorkspace(v3, false).total_bytes(), 0);
  const OwnAttentionWorkspace own = OwnWorkspace(v3, true);
  EXPECT_EQ(own.shares_offset(), 4096 * 128 * 4);
  EXPECT_EQ(own.total_bytes(), 4096 * 128 * 4 * (1 + 64));
  const CudnnWorkspace parts = CudnnParts(v3, true, 1000);
  EXPECT_EQ(parts.key_gradients_offset(), 4096 * 128 * 192 * 2);
  EXPECT_EQ(parts.stats_offset(), 2 * parts.key_gradients_offset());
  EXPECT_EQ(parts.total_bytes(), parts.library_offset() + 1024);
  EXPECT_EQ(CudnnParts(v3, false, 0).stats_offset(), 4096 * 128 * 192 * 2);
}

}  // namespace
}  // namespace shoestring::cuda
