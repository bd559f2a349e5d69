// Tests of the arena: alignment, scopes, what each purpose holds, freezing, and measuring without memory.
#include "kernels/arena.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using testing::HasSubstr;

struct alignas(64) Line {
  std::byte bytes[64];
};

class ArenaTest : public testing::Test {
 protected:
  static constexpr int64_t kLines = 16;
  std::vector<Line> memory_ = std::vector<Line>(kLines);
  Arena arena_ = Arena(memory_[0].bytes, kLines * 64);
};

TEST_F(ArenaTest, AllocationsAreAlignedAndFollowEachOther) {
  const View a = arena_.Allocate(Purpose::kData, "a", DType::kBF16, 3, 5);  // 30 bytes
  const View b = arena_.Allocate(Purpose::kScratch, "b", DType::kF32, 1, 17);
  EXPECT_EQ(a.data, memory_[0].bytes);
  EXPECT_EQ(b.data, memory_[1].bytes);
  EXPECT_EQ(b.rows, 1);
  EXPECT_EQ(b.cols, 17);
  EXPECT_EQ(b.stride, 17);
  EXPECT_EQ(b.dtype, DType::kF32);
  EXPECT_EQ(arena_.used_bytes(), 64 + 128);
  EXPECT_EQ(arena_.high_water_bytes(Purpose::kData), 64);
  EXPECT_EQ(arena_.high_water_bytes(Purpose::kScratch), 128);
  EXPECT_EQ(arena_.high_water_bytes(Purpose::kMoments), 0);
}

TEST_F(ArenaTest, AnEmptyTensorTakesNothingAndIsNotNull) {
  const View empty = arena_.Allocate(Purpose::kData, "empty", DType::kF32, 0, 7);
  EXPECT_TRUE(empty);
  EXPECT_TRUE(empty.empty());
  EXPECT_EQ(arena_.used_bytes(), 0);
}

TEST_F(ArenaTest, ScopesGiveBackWhatWasTakenInside) {
  arena_.Allocate(Purpose::kMasterWeights, "w", DType::kF32, 1, 16);
  {
    ArenaScope outer(arena_);
    arena_.Allocate(Purpose::kActivations, "x", DType::kF32, 2, 16);
    {
      ArenaScope inner(arena_);
      const View y = arena_.Allocate(Purpose::kActivations, "y", DType::kF32, 4, 16);
      EXPECT_EQ(y.data, memory_[3].bytes);
    }
    EXPECT_EQ(arena_.used_bytes(), 3 * 64);
    EXPECT_EQ(arena_.Allocate(Purpose::kActivations, "z", DType::kF32, 1, 16).data, memory_[3].bytes);
  }
  EXPECT_EQ(arena_.used_bytes(), 64);
  EXPECT_EQ(arena_.high_water_bytes(), 7 * 64);
  EXPECT_EQ(arena_.high_water_bytes(Purpose::kActivations), 6 * 64);
}

TEST_F(ArenaTest, TheTableShowsPeaksSharesAndLargestNames) {
  arena_.Allocate(Purpose::kMasterWeights, "embedding", DType::kF32, 1, 16);
  {
    ArenaScope scope(arena_);
    arena_.Allocate(Purpose::kScratch, "small", DType::kF32, 1, 16);
    arena_.Allocate(Purpose::kScratch, "large", DType::kF32, 2, 16);
  }
  const std::string table = arena_.Table();
  EXPECT_THAT(table, HasSubstr("master_weights"));
  EXPECT_THAT(table, HasSubstr("25.00%  embedding"));
  EXPECT_THAT(table, HasSubstr("75.00%  large 0.000 MiB, small"));
  EXPECT_THAT(table, testing::Not(HasSubstr("gradients")));
}

TEST_F(ArenaTest, AfterFreezingOnlyScopesMayAllocate) {
  ArenaScope step(arena_);
  arena_.Freeze();
  {
    ArenaScope action(arena_);
    EXPECT_TRUE(arena_.Allocate(Purpose::kScratch, "late", DType::kF32, 1, 16));
  }
  EXPECT_THAT(arena_.Table(), testing::Not(HasSubstr("late")));
  EXPECT_DEATH(arena_.Allocate(Purpose::kScratch, "stray", DType::kF32, 1, 16), "stray is allocated after Freeze");
}

TEST_F(ArenaTest, TooMuchAbortsAndNamesTheAllocation) {
  arena_.Allocate(Purpose::kData, "fits", DType::kF32, kLines, 16);
  EXPECT_DEATH(arena_.Allocate(Purpose::kGradients, "last_straw", DType::kU8, 1, 1),
               "last_straw needs 64 bytes, but 1024 of 1024 are taken");
}

TEST_F(ArenaTest, AMisalignedBlockIsRefused) { EXPECT_DEATH(Arena(memory_[0].bytes + 8, 64), "check failed"); }

TEST(MeasuringArena, NeedsExactlyWhatARealArenaNeeds) {
  const auto allocate = [](Arena& arena) {
    arena.Allocate(Purpose::kMasterWeights, "w", DType::kF32, 33, 7);
    ArenaScope scope(arena);
    arena.Allocate(Purpose::kScratch, "s", DType::kBF16, 5, 99);
  };
  Arena measuring = Arena::Measuring();
  allocate(measuring);
  EXPECT_TRUE(measuring.measuring());
  std::vector<Line> memory(measuring.high_water_bytes() / 64);
  Arena real(memory[0].bytes, measuring.high_water_bytes());
  allocate(real);
  EXPECT_EQ(real.high_water_bytes(), measuring.high_water_bytes());
  EXPECT_FALSE(real.measuring());
}

TEST(MeasuringArena, HoldsAModelThatNoMachineHolds) {
  Arena arena = Arena::Measuring();
  const View huge = arena.Allocate(Purpose::kMasterWeights, "w", DType::kF32, int64_t{1} << 30, int64_t{1} << 16);
  EXPECT_TRUE(huge);
  EXPECT_TRUE(huge.Rows(1 << 29, 1));
  EXPECT_EQ(arena.high_water_bytes(Purpose::kMasterWeights), int64_t{1} << 48);
}

}  // namespace
}  // namespace shoestring
