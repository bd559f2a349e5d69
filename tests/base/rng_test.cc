// Tests of the random numbers: Philox's published vectors, independence of streams, and moments.
#include "base/rng.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;

constexpr uint32_t kOnes = 0xffffffff;

// From the file kat_vectors of Random123, the authors' library, lines "philox4x32 10".
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_THAT(Philox({0, 0, 0, 0}, 0, 0), ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox({kOnes, kOnes, kOnes, kOnes}, kOnes, kOnes),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

// The layout of seed, purpose, stream and index in key and counter is part of the numerics: a run must repeat for ever.
TEST(RngTest, KeyAndCounterLayoutIsFixed) {
  const Rng rng(0x0123456789abcdef, RngPurpose::kShuffle, 0xfedcba9876543210);
  const Philox4 expected =
      Philox({0x55667788, 0x11223344, 0x76543210, 0xfedcba98}, 0x89abcdef, 0x01234567 ^ (2 * 0x9E3779B9u));
  EXPECT_EQ(rng.Block(0x1122334455667788), expected);
  EXPECT_EQ(rng.Bits64(0x1122334455667788), (uint64_t{expected[1]} << 32) | expected[0]);
}

TEST(RngTest, SeedPurposeStreamAndIndexAllMatter) {
  const uint64_t base = Rng(7, RngPurpose::kInit, 3).Bits64(5);
  EXPECT_EQ(base, Rng(7, RngPurpose::kInit, 3).Bits64(5));
  EXPECT_NE(base, Rng(8, RngPurpose::kInit, 3).Bits64(5));
  EXPECT_NE(base, Rng(7 + (uint64_t{1} << 32), RngPurpose::kInit, 3).Bits64(5));
  EXPECT_NE(base, Rng(7, RngPurpose::kFim, 3).Bits64(5));
  EXPECT_NE(base, Rng(7, RngPurpose::kInit, 4).Bits64(5));
  EXPECT_NE(base, Rng(7, RngPurpose::kInit, 3).Bits64(6));
}

TEST(RngTest, UniformMomentsAndRange) {
  const Rng rng(1, RngPurpose::kTest, 0);
  constexpr int kCount = 200'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kCount; ++i) {
    const double u = rng.Uniform(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  // Five standard errors of the mean of u (0.289 / sqrt n) and of u^2 (0.298 / sqrt n).
  EXPECT_NEAR(sum / kCount, 0.5, 5 * 0.289 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1.0 / 3, 5 * 0.298 / std::sqrt(kCount));
}

TEST(RngTest, NormalMoments) {
  const Rng rng(2, RngPurpose::kTest, 0);
  constexpr int kCount = 200'000;
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, neighbours = 0, previous = 0;
  for (int i = 0; i < kCount; ++i) {
    const double x = rng.Normal(i);
    ASSERT_TRUE(std::isfinite(x));
    m1 += x;
    m2 += x * x;
    m3 += x * x * x;
    m4 += x * x * x * x;
    neighbours += x * previous;
    previous = x;
  }
  // Five standard errors; variances of x, x^2, x^3, x^4 are 1, 2, 15, 96.
  const double unit = 5 / std::sqrt(kCount);
  EXPECT_NEAR(m1 / kCount, 0, unit);
  EXPECT_NEAR(m2 / kCount, 1, unit * std::sqrt(2.0));
  EXPECT_NEAR(m3 / kCount, 0, unit * std::sqrt(15.0));
  EXPECT_NEAR(m4 / kCount, 3, unit * std::sqrt(96.0));
  EXPECT_NEAR(neighbours / kCount, 0, unit);
}

TEST(RngTest, BelowIsUniformAndBounded) {
  const Rng rng(3, RngPurpose::kTest, 0);
  constexpr int kCount = 70'000;
  int counts[7] = {};
  for (int i = 0; i < kCount; ++i) {
    const uint64_t value = rng.Below(i, 7);
    ASSERT_LT(value, 7u);
    ++counts[value];
  }
  double chi_squared = 0;
  for (const int count : counts) chi_squared += (count - 10'000.0) * (count - 10'000.0) / 10'000.0;
  EXPECT_LT(chi_squared, 22.5);  // 6 degrees of freedom, p = 0.001
  EXPECT_EQ(rng.Below(0, 1), 0u);
}

}  // namespace
}  // namespace shoestring
