// The state of a run: what is allocated, and that step 0 is a function of seed, name and index.
#include "trainer/train_state.h"

#include <cmath>
#include <memory>

#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "trainer/memory_block.h"

namespace shoestring {
namespace {

std::vector<Parameter> Table() {
  std::vector<Parameter> table(3);
  table[0].name = "matrix";
  table[0].rows = 1200;
  table[0].cols = 1000;  // more than one chunk
  table[1].name = "gain";
  table[1].cols = 5;
  table[1].initializer = Initializer::kOnes;
  table[1].compute_copy = false;
  table[2].name = "bias";
  table[2].cols = 4;
  table[2].initializer = Initializer::kZeros;
  table[2].trained = false;
  table[2].compute_copy = false;
  return table;
}

class TrainStateTest : public testing::Test {
 protected:
  TrainStateTest() : memory_(*MemoryBlock::Map(64 << 20)), arena_(memory_.data(), memory_.size_bytes()) {}
  std::vector<Parameter> table_ = Table();
  const HeldTable held_ = HeldTable::Whole(table_, /*copies=*/true);
  const HeldTable held_f32_ = HeldTable::Whole(table_, /*copies=*/false);
  std::unique_ptr<Backend> backend_ = MakeCpuBackend({});
  std::unique_ptr<Stream> stream_ = backend_->MakeStream();
  MemoryBlock memory_;
  Arena arena_;
};

TEST_F(TrainStateTest, InitialisesByNameAndIndexOnAnyNumberOfThreads) {
  for (int threads : {1, 3}) {
    Arena arena(memory_.data(), memory_.size_bytes());
    TrainState state(arena, held_, {.activation = DType::kBF16, .moments = DType::kBF16, .ema = true});
    ThreadPool pool(threads);
    state.Initialize(*backend_, *stream_, pool, 42, 0.006);
    ASSERT_TRUE(state.RefreshCompute(*backend_, *stream_, SingleRank(*backend_)).ok());
    const ParameterState& matrix = state.parameter(0);
    const Rng rng(42, RngPurpose::kInit, InitStream("matrix"));
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < table_[0].elements(); ++i) {
      const float x = matrix.master.as<float>()[i];
      ASSERT_EQ(x, static_cast<float>(0.006 * rng.Normal(i))) << i;
      ASSERT_EQ(matrix.compute.as<BF16>()[i].bits, BF16(x).bits);
      ASSERT_EQ(matrix.ema.as<float>()[i], x);
      ASSERT_EQ(matrix.m.as<BF16>()[i].bits, 0);
      ASSERT_EQ(matrix.v.as<BF16>()[i].bits, 0);
      sum += x;
      squares += static_cast<double>(x) * x;
    }
    const double n = static_cast<double>(table_[0].elements());
    EXPECT_NEAR(sum / n, 0.0, 5 * 0.006 / std::sqrt(n));  // five standard errors
    EXPECT_NEAR(std::sqrt(squares / n), 0.006, 5 * 0.006 / std::sqrt(2 * n));
    for (int i = 0; i < 5; ++i) EXPECT_EQ(state.parameter(1).master.as<float>()[i], 1.0f);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(state.parameter(2).master.as<float>()[i], 0.0f);
    EXPECT_EQ(state.position, RunPosition());
  }
}

TEST_F(TrainStateTest, AllocatesWhatTheFormatSays) {
  const TrainState bf16(arena_, held_, {.activation = DType::kBF16, .moments = DType::kBF16, .ema = false});
  EXPECT_EQ(bf16.parameter(0).m.dtype, DType::kBF16);
  EXPECT_FALSE(bf16.parameter(0).ema);
  EXPECT_EQ(bf16.parameter(0).weight().values.data, bf16.parameter(0).compute.data);
  EXPECT_EQ(bf16.parameter(1).weight().values.data, bf16.parameter(1).master.data);
  EXPECT_FALSE(bf16.parameter(2).m);
  const TrainState f32(arena_, held_f32_, {.activation = DType::kF32, .moments = DType::kF32, .ema = true});
  EXPECT_FALSE(f32.parameter(0).compute);
  EXPECT_EQ(f32.parameter(0).weight().values.data, f32.parameter(0).master.data);
  EXPECT_EQ(f32.parameter(0).ema.elements(), 1200 * 1000);
  EXPECT_FALSE(f32.parameter(2).ema);
}

TEST(InitStreamTest, IsFnv1a) {
  // Published test vectors of the 64-bit FNV-1a hash.
  EXPECT_EQ(InitStream(""), 0xcbf29ce484222325u);
  EXPECT_EQ(InitStream("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(InitStream("foobar"), 0x85944171f73967e8u);
}

}  // namespace
}  // namespace shoestring
