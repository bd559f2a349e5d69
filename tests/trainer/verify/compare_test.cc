// Which element differs, by how much, and whether parts make a whole.
#include "trainer/verify/compare.h"

#include <bit>
#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

uint64_t Bits(float x) { return std::bit_cast<uint32_t>(x); }
uint64_t Bits(double x) { return std::bit_cast<uint64_t>(x); }

TEST(UnitsApartTest, CountsTheNumbersBetween) {
  EXPECT_EQ(UnitsApart(DType::kF32, Bits(1.0f), Bits(1.0f)), 0u);
  EXPECT_EQ(UnitsApart(DType::kF32, Bits(1.0f), Bits(std::nextafter(1.0f, 2.0f))), 1u);
  EXPECT_EQ(UnitsApart(DType::kF32, Bits(std::nextafter(1.0f, 0.0f)), Bits(std::nextafter(1.0f, 2.0f))), 2u);
  EXPECT_EQ(UnitsApart(DType::kF32, Bits(1.0f), Bits(2.0f)), uint64_t{1} << 23);
  EXPECT_EQ(UnitsApart(DType::kF32, Bits(-0.0f), Bits(0.0f)), 1u);
  const float tiny = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(UnitsApart(DType::kF32, Bits(-tiny), Bits(tiny)), 3u);
  EXPECT_EQ(UnitsApart(DType::kF64, Bits(1.0), Bits(std::nextafter(1.0, 0.0))), 1u);
  EXPECT_EQ(UnitsApart(DType::kF64, Bits(-1.0), Bits(1.0)), 2 * (Bits(1.0) + 1) - 1);
  EXPECT_EQ(UnitsApart(DType::kBF16, 0x3f80, 0x3f82), 2u);
  EXPECT_EQ(UnitsApart(DType::kI64, static_cast<uint64_t>(-3), 4), 7u);
}

TEST(BitsAsTextTest, SaysValueAndBits) {
  EXPECT_EQ(BitsAsText(DType::kF32, Bits(0.5f)), "0.5 (0x3f000000)");
  EXPECT_EQ(BitsAsText(DType::kBF16, 0x3f80), "1 (0x3f80)");
  EXPECT_EQ(BitsAsText(DType::kF64, Bits(-2.0)), "-2 (0xc000000000000000)");
  EXPECT_EQ(BitsAsText(DType::kI64, static_cast<uint64_t>(-3)), "-3");
}

class PartsTest : public testing::Test {
 protected:
  TensorPart Part(const std::vector<float>& values, int64_t first, int64_t count) const {
    return {0, first, ConstView(reinterpret_cast<const std::byte*>(values.data() + first), DType::kF32, 1, count)};
  }
  absl::Status Assemble(std::vector<TensorPart> a, std::vector<TensorPart> b) {
    one_.spoken = std::move(a);
    other_.spoken = std::move(b);
    return whole_.Assemble({{"weights", "w", DType::kF32, {2, 3}}}, {&one_, &other_});
  }
  const std::vector<float> right_ = {1, 2, 3, 4, 5, 6};
  StepParts one_, other_;
  WholeTensors whole_;
};

TEST_F(PartsTest, FindTheFirstElementThatDiffers) {
  ASSERT_TRUE(Assemble({Part(right_, 4, 2)}, {Part(right_, 0, 4)}).ok());
  EXPECT_THAT(CompareParts({Part(right_, 1, 5)}, whole_, 7, Rank(3)), IsEmpty());
  std::vector<float> wrong = right_;
  wrong[5] = 8;
  wrong[4] = std::nextafter(5.0f, 9.0f);
  const std::vector<Difference> found = CompareParts({Part(wrong, 1, 5)}, whole_, 7, Rank(3));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].step, 7);
  EXPECT_EQ(found[0].element, 4);
  EXPECT_EQ(found[0].rank, Rank(3));
  EXPECT_EQ(found[0].expected, Bits(5.0f));
  EXPECT_EQ(found[0].found, Bits(5.0f) + 1);
  EXPECT_THAT(CompareParts({Part(wrong, 0, 4)}, whole_, 7, Rank(3)), IsEmpty());
}

TEST_F(PartsTest, DigestDoesNotDependOnTheCut) {
  ASSERT_TRUE(Assemble({Part(right_, 4, 2)}, {Part(right_, 0, 4)}).ok());
  const std::string cut = whole_.Sha256Of(0);
  ASSERT_TRUE(Assemble({Part(right_, 0, 6)}, {}).ok());
  EXPECT_EQ(whole_.Sha256Of(0), cut);
  EXPECT_EQ(cut.size(), 64u);
}

TEST_F(PartsTest, EveryElementIsThereOnce) {
  const absl::Status absent = Assemble({Part(right_, 0, 3)}, {Part(right_, 4, 2)});
  EXPECT_TRUE(absl::IsInternal(absent));
  EXPECT_THAT(absent.message(), HasSubstr("weights.w: element 3 of 6"));
  EXPECT_TRUE(absl::IsInternal(Assemble({Part(right_, 0, 4)}, {Part(right_, 3, 3)})));
  EXPECT_TRUE(absl::IsInternal(Assemble({Part(right_, 0, 5)}, {})));
  EXPECT_TRUE(absl::IsInternal(Assemble({Part(right_, 0, 6)}, {Part(right_, 0, 6)})));
}

}  // namespace
}  // namespace shoestring
