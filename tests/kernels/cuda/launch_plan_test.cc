// Tests that the plans of the memory-bound kernels cover every element, and fit what a device gives a block.
#include "kernels/cuda/launch_plan.h"

#include "gtest/gtest.h"

namespace shoestring {
namespace {

constexpr int64_t kWidths[] = {1, 7, 8, 9, 64, 255, 256, 512, 576, 1536, 2048, 2112, 7168, 16384, 16385, 18432, 129280};

TEST(LaunchPlanTest, ARowsThreadsTakeAllItsChunksAndNoMore) {
  for (const int64_t cols : kWidths) {
    const RowPlan plan = PlanRow(cols);
    EXPECT_EQ(plan.threads % kWarp, 0) << cols;
    EXPECT_LE(plan.threads * plan.rows_per_block, kRowThreads) << cols;
    EXPECT_GE(plan.threads * plan.chunks, Chunks(cols)) << cols;
    EXPECT_LT(plan.threads * (plan.chunks - 1), Chunks(cols)) << cols;
    // RowReduce has kWarp places a row, in kRowBlockThreads of them or one row.
    EXPECT_LE(plan.rows_per_block * kWarp, kRowBlockThreads) << cols;
    EXPECT_LE(plan.threads / kWarp, kWarp) << cols;
    EXPECT_EQ(FitsRegisters(plan), cols <= 16384) << cols;
  }
}

TEST(LaunchPlanTest, TheModelsWidthsWasteNoThread) {
  EXPECT_EQ(PlanRow(7168).threads, 224);
  EXPECT_EQ(PlanRow(7168).chunks, 4);
  EXPECT_EQ(PlanRow(2048).threads * PlanRow(2048).chunks, 256);
  EXPECT_EQ(PlanSpans(Chunks(2048)).threads, 256);
  EXPECT_EQ(PlanSpans(Chunks(2048)).spans, 1);
}

TEST(LaunchPlanTest, SpansCoverARow) {
  for (const int64_t cols : kWidths) {
    const SpanPlan plan = PlanSpans(Chunks(cols));
    EXPECT_EQ(plan.threads % kWarp, 0) << cols;
    EXPECT_LE(plan.threads * plan.rows_per_block, kSpanThreads) << cols;
    EXPECT_GE(plan.threads * plan.spans, Chunks(cols)) << cols;
    EXPECT_LT(plan.threads * (plan.spans - 1), Chunks(cols)) << cols;
    EXPECT_LE(plan.spans, 65535) << cols;  // the grid's second dimension
  }
}

TEST(LaunchPlanTest, LanesOfATileArePowersOfTwoInsideAWarp) {
  EXPECT_EQ(TileLanes(128), 16);
  EXPECT_EQ(TileLanes(8), 1);
  EXPECT_EQ(TileLanes(256), 32);
  for (const int64_t width : {1, 4, 24, 100, 129, 512}) EXPECT_EQ(TileLanes(width), 0) << width;
}

TEST(LaunchPlanTest, AClusterKeepsTheWholeVocabularyInRegisters) {
  EXPECT_EQ(SoftmaxCluster(129280), 8);
  EXPECT_TRUE(SoftmaxFitsRegisters(129280));
  EXPECT_EQ(SoftmaxCluster(16384), 1);
  EXPECT_EQ(SoftmaxCluster(16392), 2);
  EXPECT_EQ(SoftmaxCluster(10'000'000), kLargestCluster);
  EXPECT_FALSE(SoftmaxFitsRegisters(10'000'000));
}

TEST(LaunchPlanTest, TokensOfTheRouterFitSharedMemory) {
  for (const int64_t experts : {1, 8, 64, 256, 257, 1024, 4096}) {
    const TokenPlan plan = PlanTokens(experts, std::min<int64_t>(experts, 8), std::min<int64_t>(experts, 64), true);
    EXPECT_LE(plan.shared_bytes(), kSharedBytes) << experts;
    EXPECT_GE(plan.warps, 1);
    EXPECT_GE(plan.warp_words, experts);
    EXPECT_EQ(plan.block_words, experts);
  }
  EXPECT_EQ(PlanTokens(256, 8, 8, true).warps, 8);
}

TEST(LaunchPlanTest, UnitsOfTheSortAreFewAndWhole) {
  for (const int64_t pairs : {int64_t{1}, int64_t{255}, int64_t{65536}, int64_t{1} << 24}) {
    const int64_t unit = SortUnitPairs(pairs);
    EXPECT_EQ(unit % kWarp, 0);
    EXPECT_LE(DivideUp(pairs, unit), kSortUnits);
  }
}

}  // namespace
}  // namespace shoestring
