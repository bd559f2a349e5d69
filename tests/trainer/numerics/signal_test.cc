// Figures of noise against numbers worked out by hand, and the reading of quantised tensors against plain loops.
#include "trainer/numerics/signal.h"

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/trainer/model/quantised_reference.h"
#include "trainer/memory_block.h"
#include "trainer/model/precision.h"

namespace shoestring {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Signal Compare(std::vector<float> reference, std::vector<float> value) {
  Signal signal;
  signal.Add(reference, value);
  return signal;
}

TEST(SignalTest, FiguresByHand) {
  // Squares of the reference 9 + 16 = 25, of the error 0.09 + 0.16 = 0.25: 20 dB.
  const Signal signal = Compare({3, -4}, {3.3f, -4.4f});
  EXPECT_NEAR(signal.SnrDb(), 20, 1e-5);
  EXPECT_NEAR(signal.RelativeError(), 0.1, 1e-6);
  EXPECT_NEAR(signal.Cosine(), 1, 1e-6);
  EXPECT_NEAR(signal.max_error(), 0.4, 1e-6);
  EXPECT_EQ(signal.max_reference(), 4);
  EXPECT_EQ(signal.elements(), 2);
  // 3 * 4 - 4 * 3 = 0: a right angle. The error is (1, 7): 50 against 25.
  EXPECT_NEAR(Compare({3, -4}, {4, 3}).Cosine(), 0, 1e-12);
  EXPECT_NEAR(Compare({3, -4}, {4, 3}).SnrDb(), 10 * std::log10(0.5), 1e-12);
}

TEST(SignalTest, EdgesHaveNames) {
  EXPECT_EQ(Compare({1, 2}, {1, 2}).SnrDb(), kInfinity);
  EXPECT_EQ(Compare({0, 0}, {0, 0}).SnrDb(), kInfinity);
  EXPECT_EQ(Compare({0, 0}, {0, 0}).Cosine(), 1);
  EXPECT_EQ(Compare({0, 0}, {0, 1}).SnrDb(), -kInfinity);
  EXPECT_EQ(Compare({0, 0}, {0, 1}).Cosine(), 0);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float broken : {std::nanf(""), infinity, -infinity}) {
    for (const Signal& signal :
         {Compare({1, 2}, {broken, 2}), Compare({broken, 2}, {1, 2}), Compare({0, 0}, {broken, 0})}) {
      EXPECT_TRUE(std::isnan(signal.SnrDb())) << broken;
      EXPECT_TRUE(std::isnan(signal.RelativeError())) << broken;
      EXPECT_TRUE(std::isnan(signal.Cosine())) << broken;
      EXPECT_FALSE(std::isfinite(signal.max_error())) << broken;
    }
  }
}

TEST(SignalTest, PiecesAddUp) {
  Signal pieces = Compare({3}, {3.3f});
  pieces.Add(std::vector<float>{-4}, std::vector<float>{-4.4f});
  Signal merged = Compare({3}, {3.3f});
  merged.Merge(Compare({-4}, {-4.4f}));
  const Signal whole = Compare({3, -4}, {3.3f, -4.4f});
  for (const Signal& signal : {pieces, merged}) {
    EXPECT_EQ(signal.SnrDb(), whole.SnrDb());
    EXPECT_EQ(signal.Cosine(), whole.Cosine());
    EXPECT_EQ(signal.max_error(), whole.max_error());
    EXPECT_EQ(signal.elements(), 2);
  }
}

void AddOne(QuantiserLoss& loss, DType format, float x, float scale, float y) {
  loss.Add(format, {&x, 1}, {&scale, 1}, {&y, 1});
}

TEST(QuantiserLossTest, CountsByHand) {
  QuantiserLoss loss;
  const float scale = 2;
  // In units of the scale: at the largest value; beyond it; small but normal (2^-6); subnormal (2^-9); flushed; zero.
  AddOne(loss, DType::kE4M3, 896, scale, 896);
  AddOne(loss, DType::kE4M3, -1000, scale, -896);
  AddOne(loss, DType::kE4M3, 0x1p-5f, scale, 0x1p-5f);
  AddOne(loss, DType::kE4M3, 0x1p-8f, scale, 0x1p-8f);
  AddOne(loss, DType::kE4M3, 0x1p-10f, 0.5f * scale, 0);
  AddOne(loss, DType::kE4M3, 0, scale, 0);
  EXPECT_EQ(loss.elements, 6);
  EXPECT_EQ(loss.nonzero, 5);
  EXPECT_EQ(loss.saturated, 2);
  EXPECT_EQ(loss.subnormal, 1);
  EXPECT_EQ(loss.flushed, 1);
  EXPECT_DOUBLE_EQ(loss.saturated_share(), 2.0 / 6);
  EXPECT_DOUBLE_EQ(loss.flushed_share(), 1.0 / 5);
  EXPECT_DOUBLE_EQ(loss.underflow_share(), 2.0 / 5);
  EXPECT_EQ(loss.scale_min, 1);
  EXPECT_EQ(loss.scale_max, 2);
  // E5M2 reaches 2^-14 before it turns subnormal.
  QuantiserLoss wide;
  AddOne(wide, DType::kE5M2, 0x1p-14f, 1, 0x1p-14f);
  AddOne(wide, DType::kE5M2, 0x1p-15f, 1, 0x1p-15f);
  EXPECT_EQ(wide.subnormal, 1);
  wide.Merge(loss);
  EXPECT_EQ(wide.elements, 8);
  EXPECT_EQ(wide.subnormal, 2);
  EXPECT_EQ(wide.scale_max, 2);
}

TEST(QuantiserLossTest, TheLargestElementOfATileIsSaturatedThoughItsScaleIsRounded) {
  for (const float amax : {1.0f, 0.3f, 5e-7f, 447.9f, 1e30f}) {
    QuantiserLoss loss;
    const float scale = amax / 448;
    AddOne(loss, DType::kE4M3, amax, scale, 448 * scale);
    AddOne(loss, DType::kE4M3, amax * (1 - 0x1p-20f), scale, 448 * scale);
    EXPECT_EQ(loss.saturated, 1) << amax;
  }
}

class ReadElementsTest : public testing::Test {
 protected:
  static constexpr int64_t kRows = 150, kCols = 70;
  ReadElementsTest() : memory_(*MemoryBlock::Map(8 << 20)), arena_(memory_.data(), memory_.size_bytes()) {
    x_ = arena_.Allocate(Purpose::kScratch, "x", DType::kF32, kRows, kCols);
    const Rng rng(5, RngPurpose::kTest, 0);
    for (int64_t i = 0; i < x_.elements(); ++i) {
      x_.as<float>()[i] = static_cast<float>(rng.Normal(i) * std::exp(2 * rng.Normal(i + 100000)));
    }
  }
  // What a tile from (row, col) on, cut at the given ends, stands for, element by element.
  void ExpectTile(int64_t row, int64_t col, int64_t row_end, int64_t col_end, const quantised_reference::Format& format,
                  const std::vector<float>& read, const std::vector<float>& scales) {
    float largest = 0;
    for (int64_t r = row; r < row_end; ++r) {
      for (int64_t c = col; c < col_end; ++c) largest = std::max(largest, std::abs(x_.as<float>(r)[c]));
    }
    const float scale = largest / static_cast<float>(format.largest);
    for (int64_t r = row; r < row_end; ++r) {
      for (int64_t c = col; c < col_end; ++c) {
        ASSERT_EQ(scales[r * kCols + c], scale) << r << " " << c;
        const float code = static_cast<float>(quantised_reference::Round(x_.as<float>(r)[c] / scale, format));
        ASSERT_EQ(read[r * kCols + c], code * scale) << r << " " << c;
      }
    }
  }

  std::unique_ptr<Backend> backend_ = MakeCpuBackend({});
  std::unique_ptr<Stream> stream_ = backend_->MakeStream();
  MemoryBlock memory_;
  Arena arena_;
  View x_;
};

TEST_F(ReadElementsTest, StacksOfRaggedTiles) {
  const OperandFormat format{DType::kE4M3, {64, 32}, false};
  const MutableOperand y = AllocateOperand(arena_, Purpose::kScratch, "y", format, kRows, kCols, /*stack=*/2);
  backend_->Quantize(*stream_, {x_, y, /*stack=*/2, {}});
  std::vector<float> scales;
  const std::vector<float> read = ReadElements(y, /*stack=*/2, {}, &scales);
  for (int64_t matrix = 0; matrix < 2; ++matrix) {
    const int64_t first = matrix * kRows / 2, end = (matrix + 1) * kRows / 2;
    for (int64_t row = first; row < end; row += 64) {
      for (int64_t col = 0; col < kCols; col += 32) {
        ExpectTile(row, col, std::min(row + 64, end), std::min(col + 32, kCols), quantised_reference::kE4M3, read,
                   scales);
      }
    }
  }
}

TEST_F(ReadElementsTest, SegmentsOfTokens) {
  const int32_t offsets[] = {0, 3, 3, 100, 140};
  const Segments segments{ConstView(reinterpret_cast<const std::byte*>(offsets), DType::kI32, 1, 5), 4, kRows};
  const OperandFormat format{DType::kE5M2, {32, 1}, false};
  const MutableOperand y = AllocateOperand(arena_, Purpose::kScratch, "y", format, kRows, kCols, 1, segments.groups);
  backend_->Quantize(*stream_, {x_, y, /*stack=*/1, segments});
  std::vector<float> scales;
  const std::vector<float> read = ReadElements(y, /*stack=*/1, segments, &scales);
  for (int e = 0; e < 4; ++e) {
    for (int64_t row = offsets[e]; row < offsets[e + 1]; row += 32) {
      for (int64_t col = 0; col < kCols; ++col) {
        ExpectTile(row, col, std::min<int64_t>(row + 32, offsets[e + 1]), col + 1, quantised_reference::kE5M2, read,
                   scales);
      }
    }
  }
  for (int64_t i = 140 * kCols; i < kRows * kCols; ++i) ASSERT_EQ(read[i], 0);  // rows that do not exist
}

TEST_F(ReadElementsTest, PairsOfE5M6) {
  const OperandFormat format{DType::kE5M6, {1, 128}, false};
  const MutableOperand y = AllocateOperand(arena_, Purpose::kScratch, "y", format, kRows, kCols);
  backend_->Quantize(*stream_, {x_, y, /*stack=*/1, {}});
  std::vector<float> scales;
  const std::vector<float> read = ReadElements(y, 1, {}, &scales);
  for (int64_t row = 0; row < kRows; ++row) {
    ExpectTile(row, 0, row + 1, kCols, quantised_reference::kE5M6, read, scales);
  }
}

TEST_F(ReadElementsTest, ColumnsOfPlainMatrices) {
  const std::vector<float> read = ReadElements(x_.Columns(3, 2).Rows(1, 2));
  EXPECT_EQ(read, (std::vector<float>{x_.as<float>(1)[3], x_.as<float>(1)[4], x_.as<float>(2)[3], x_.as<float>(2)[4]}));
}

}  // namespace
}  // namespace shoestring
