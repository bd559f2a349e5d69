// Tests of Quantize, Dequantize and the operations that quantise what they make: bit for bit against plain loops.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/reference/fp8.h"
#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

// A quantised tensor, poisoned before use: codes with all bits set, scales NaN.
struct Coded {
  Coded(DType dtype, int64_t rows, int64_t cols, Tile tile, int64_t scale_rows, bool power_of_two = false)
      : dtype(dtype),
        rows(rows),
        cols(cols),
        tile(tile),
        power_of_two(power_of_two),
        codes(BytesOf(dtype, rows * (cols + 2)), std::byte{0xff}),
        scales(DType::kF32, scale_rows, ScaleColumns(tile, cols), 1) {}
  MutableOperand operand() {
    return {View(codes.data(), dtype, rows, cols, cols + 2), scales.view(), tile, power_of_two};
  }
  uint32_t Code(int64_t r, int64_t c) const {
    const int64_t i = r * (cols + 2) + c;
    if (dtype != DType::kE5M6) return static_cast<uint32_t>(codes[i]);
    // A stream of bits, twelve a code, the lowest first.
    const uint32_t two = static_cast<uint32_t>(codes[i * 12 / 8]) | static_cast<uint32_t>(codes[i * 12 / 8 + 1]) << 8;
    return two >> i * 12 % 8 & 0xfff;
  }
  float Value(int64_t r, int64_t c) const {
    const float scale = static_cast<float>(scales.at(r / tile.rows, c / tile.cols));
    return static_cast<float>(reference::ValueOf(dtype, Code(r, c))) * scale;
  }
  DType dtype;
  int64_t rows, cols;
  Tile tile;
  bool power_of_two;
  std::vector<std::byte> codes;
  TestTensor scales;
};

bool SameOrNan(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// Checks one tile of y by the words of QuantizeArgs; x(r, c) is an f32.
template <typename X>
void ExpectTile(const Coded& y, const X& x, int64_t row, int64_t end, int64_t column, int64_t last, int64_t scale_row) {
  float largest = 0;
  for (int64_t r = row; r < end; ++r) {
    for (int64_t c = column; c < last; ++c) {
      if (!std::isnan(x(r, c))) largest = std::max(largest, std::abs(x(r, c)));
    }
  }
  const float scale = reference::ScaleOf(y.dtype, largest, y.power_of_two);
  ASSERT_EQ(y.scales.at(scale_row, column / y.tile.cols), scale) << "tile at " << row << ", " << column;
  for (int64_t r = row; r < end; ++r) {
    for (int64_t c = column; c < last; ++c) {
      ASSERT_EQ(y.Code(r, c), reference::NearestCode(y.dtype, x(r, c) / scale)) << r << ", " << c << ": " << x(r, c);
    }
  }
}

// Rows [first, end) of y, whose tiles start at `first` with scales in `scale_row`.
template <typename X>
void ExpectRows(const Coded& y, const X& x, int64_t first, int64_t end, int64_t scale_row) {
  for (int64_t r = first; r < end; r += y.tile.rows, ++scale_row) {
    for (int64_t c = 0; c < y.cols; c += y.tile.cols) {
      ASSERT_NO_FATAL_FAILURE(
          ExpectTile(y, x, r, std::min(end, r + y.tile.rows), c, std::min(y.cols, c + y.tile.cols), scale_row));
    }
  }
}

class QuantiseTest : public OpTest {
 protected:
  // Ordinary values over many magnitudes, with zeros, one NaN, and tiles that are zero or tiny altogether.
  TestTensor Input(int64_t rows, int64_t cols) const {
    TestTensor x(act(), rows, cols, 3);
    x.Random(3);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        double v = std::ldexp(x.at(r, c), static_cast<int>((r * 7 + c * 5) % 24) - 20);
        if (r % 11 == 4) v = r % 2 == 0 ? 0 : v * 1e-36;
        if ((r + c) % 13 == 0) v = r % 2 == 0 ? 0.0 : -0.0;
        x.set(r, c, v);
      }
    }
    x.set(rows / 2, cols / 2, std::numeric_limits<double>::quiet_NaN());
    return x;
  }
  // Quantises on one thread and on three.
  void Quantise(const Operand& x, Coded& y, int64_t stack = 1, const Segments& segments = {}) {
    Coded again = y;
    RunOn(*three_, [&](Backend& b, Stream& s) { b.Quantize(s, {x, again.operand(), stack, segments}); });
    RunOn(*one_, [&](Backend& b, Stream& s) { b.Quantize(s, {x, y.operand(), stack, segments}); });
    EXPECT_TRUE(y.codes == again.codes && y.scales.bytes() == again.scales.bytes()) << "threads change bits";
    EXPECT_TRUE(y.scales.GapsUntouched());
    for (int64_t r = 0; r + 1 < y.rows; ++r) EXPECT_EQ(y.Code(r, y.cols), y.dtype == DType::kE5M6 ? 0xfffu : 0xffu);
  }
};

TEST_P(QuantiseTest, TilesOfOneRow) {
  for (DType dtype : {DType::kE4M3, DType::kE5M2, DType::kE5M6}) {
    for (const bool power_of_two : {false, true}) {
      for (const int64_t cols : {2, 34, 128, 576, 610}) {
        for (const int64_t width : {128, 6, 1000}) {
          SCOPED_TRACE(absl::StrCat(Name(dtype), " ", cols, " columns in tiles of ", width));
          const TestTensor x = Input(23, cols);
          Coded y(dtype, 23, cols, {1, width}, 23, power_of_two);
          Quantise(x, y);
          ASSERT_NO_FATAL_FAILURE(ExpectRows(
              y, [&](int64_t r, int64_t c) { return static_cast<float>(x.at(r, c)); }, 0, 23, 0));
        }
      }
    }
  }
}

TEST_P(QuantiseTest, StacksOfMatrices) {
  for (const Tile tile : {Tile{128, 128}, Tile{64, 1}, Tile{7, 5}, Tile{128, 1}}) {
    for (DType dtype : {DType::kE4M3, DType::kE5M2}) {
      const int64_t stack = 3, each = 150, cols = 201;
      const TestTensor x = Input(stack * each, cols);
      const auto at = [&](int64_t r, int64_t c) { return static_cast<float>(x.at(r, c)); };
      Coded y(dtype, stack * each, cols, tile, ScaleRows(tile, stack * each, stack), true);
      Quantise(x, y, stack);
      for (int64_t s = 0; s < stack; ++s) {
        ASSERT_NO_FATAL_FAILURE(ExpectRows(y, at, s * each, (s + 1) * each, s * ScaleRows(tile, each)));
      }
      TestTensor back(act(), stack * each, cols, 1);
      Run({&back}, [&](Backend& b, Stream& s) { b.Dequantize(s, y.operand(), back, stack); });
      for (int64_t r = 0; r < stack * each; ++r) {
        const int64_t scale_row = r / each * ScaleRows(tile, each) + r % each / tile.rows;
        for (int64_t c = 0; c < cols; ++c) {
          const float scale = static_cast<float>(y.scales.at(scale_row, c / tile.cols));
          const float value = static_cast<float>(reference::ValueOf(dtype, y.Code(r, c))) * scale;
          ASSERT_TRUE(SameOrNan(back.at(r, c), reference::RoundTo(act(), value))) << r << ", " << c;
        }
      }
    }
  }
}

TEST_P(QuantiseTest, SegmentsStartTheirTilesAnew) {
  const std::vector<int32_t> offsets = {67, 67, 140, 141, 141, 397, 400};  // more than a tile before the first
  const int64_t groups = 6, rows = 420, cols = 77;
  const Segments segments = {ConstView(reinterpret_cast<const std::byte*>(offsets.data()), DType::kI32, 1, groups + 1),
                             groups, rows};
  const TestTensor x = Input(rows, cols);
  const auto at = [&](int64_t r, int64_t c) { return static_cast<float>(x.at(r, c)); };
  for (const Tile tile : {Tile{128, 1}, Tile{1, 128}, Tile{32, 32}}) {
    const int64_t scale_rows = tile.rows == 1 ? rows : SegmentScaleRows(tile, rows, groups);
    Coded y(DType::kE4M3, rows, cols, tile, scale_rows);
    Quantise(x, y, 1, segments);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t scale_row = tile.rows == 1 ? offsets[g] : offsets[g] / tile.rows + g;
      ASSERT_NO_FATAL_FAILURE(ExpectRows(y, at, offsets[g], offsets[g + 1], scale_row));
    }
    for (int64_t r : {0, 66, 400, 419}) EXPECT_EQ(y.Code(r, 0), 0xffu) << "row " << r << " is no row";
  }
}

TEST_P(QuantiseTest, WhatCodesStandForIsQuantisedAgain) {
  const int64_t rows = 140, cols = 130;
  const TestTensor x = Input(rows, cols);
  for (DType from : {DType::kE4M3, DType::kE5M2, DType::kE5M6}) {
    for (const int64_t width : {128, 10}) {
      Coded first(from, rows, cols, {1, width}, rows, true);
      Quantise(x, first);
      const auto at = [&](int64_t r, int64_t c) { return first.Value(r, c); };
      for (const Tile tile : {Tile{128, 1}, Tile{1, 128}, Tile{40, 24}}) {
        Coded y(DType::kE4M3, rows, cols, tile, ScaleRows(tile, rows));
        Quantise(first.operand(), y);
        ASSERT_NO_FATAL_FAILURE(ExpectRows(y, at, 0, rows, 0)) << Name(from);
      }
      TestTensor back(act(), rows, cols, 1);
      Run({&back}, [&](Backend& b, Stream& s) { b.Dequantize(s, first.operand(), back); });
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          ASSERT_TRUE(SameOrNan(back.at(r, c), reference::RoundTo(act(), first.Value(r, c)))) << r << ", " << c;
        }
      }
    }
  }
}

// Quotients beside every tie of the format, for scales of all magnitudes: where a division that is not quite one shows.
TEST_P(QuantiseTest, QuotientsAreThoseOfADivision) {
  if (act() != DType::kF32) return;
  const Rng rng(5, RngPurpose::kTest, 9);
  const int64_t rows = 400;
  for (DType dtype : {DType::kE4M3, DType::kE5M2}) {
    const uint32_t codes = reference::FormatOf(dtype).first_nan;
    TestTensor x(DType::kF32, rows, 512);
    for (int64_t r = 0; r < rows; ++r) {
      const double largest = std::ldexp(1 + rng.Uniform(r), static_cast<int>(r % 250) - 140);
      const float scale = reference::ScaleOf(dtype, static_cast<float>(largest), false);
      x.set(r, 0, largest);
      for (int64_t c = 1; c < 512; ++c) {
        const uint32_t code = static_cast<uint32_t>(rng.Below(r * 512 + c, codes - 1));
        const double tie = (reference::ValueOf(dtype, code) + reference::ValueOf(dtype, code + 1)) / 2;
        float near = static_cast<float>(tie * scale);
        for (int64_t step = c % 5; step > 2; --step) near = std::nextafter(near, 0.0f);
        for (int64_t step = c % 5; step < 2; ++step) near = std::nextafter(near, INFINITY);
        x.set(r, c, std::min<double>(near, static_cast<float>(largest)) * (c % 3 == 0 ? -1 : 1));
      }
    }
    Coded y(dtype, rows, 512, {1, 512}, rows);
    Quantise(x, y);
    ASSERT_NO_FATAL_FAILURE(ExpectRows(
        y, [&](int64_t r, int64_t c) { return static_cast<float>(x.at(r, c)); }, 0, rows, 0));
  }
}

TEST_P(QuantiseTest, InfinityMakesItsTileInfinite) {
  TestTensor x(act(), 2, 256);
  x.Random(1);
  x.set(0, 130, -std::numeric_limits<double>::infinity());
  Coded y(DType::kE4M3, 2, 256, {1, 128}, 2, true);
  Quantise(x, y);
  EXPECT_TRUE(std::isinf(y.scales.at(0, 1)));
  EXPECT_EQ(y.Code(0, 130), 0x7fu);
  EXPECT_EQ(y.Code(0, 131) & 0x7f, 0u);
  EXPECT_FALSE(std::isinf(y.scales.at(0, 0)) || std::isinf(y.scales.at(1, 1)));
}

// y quantised as it is made has the bits of y made first and quantised then.
TEST_P(QuantiseTest, NormOfAStreamIsQuantisedOnTheWay) {
  for (const int64_t cols : {16, 200, 5000}) {
    const int64_t rows = 37;
    TestTensor x(act(), rows, cols, 2), delta(act(), rows, cols, 4), gain(DType::kF32, 1, cols);
    x.Random(1), delta.Random(2), gain.Random(3);
    TestTensor sum(act(), rows, cols, 1), sum_too(act(), rows, cols, 1), rms(DType::kF32, 1, rows),
        rms_too(DType::kF32, 1, rows), made(act(), rows, cols);
    Coded y(DType::kE4M3, rows, cols, {1, 128}, rows, true), want = y, again = y;
    const auto args = [&](TestTensor& s, TestTensor& r, const MutableOperand& out) {
      return RmsNormArgs{.x = x, .delta = delta, .sum = s, .gain = gain, .eps = 1e-6, .y = out, .inverse_rms = r};
    };
    RunOn(*one_, [&](Backend& b, Stream& s) {
      b.RmsNorm(s, args(sum, rms, made));
      b.Quantize(s, {made, want.operand()});
      b.RmsNorm(s, args(sum_too, rms_too, y.operand()));
    });
    RunOn(*three_, [&](Backend& b, Stream& s) { b.RmsNorm(s, args(sum_too, rms_too, again.operand())); });
    EXPECT_TRUE(y.codes == want.codes && again.codes == want.codes);
    EXPECT_TRUE(y.scales.bytes() == want.scales.bytes() && again.scales.bytes() == want.scales.bytes());
    EXPECT_TRUE(sum.bytes() == sum_too.bytes() && rms.bytes() == rms_too.bytes());
    EXPECT_NE(std::count(y.codes.begin(), y.codes.end(), std::byte{0xff}), static_cast<int64_t>(y.codes.size()));
  }
}

TEST_P(QuantiseTest, SwiGluIsQuantisedOnTheWay) {
  const std::vector<int32_t> offsets = {0, 20, 33};
  const ConstView existing(reinterpret_cast<const std::byte*>(offsets.data()), DType::kI32, 1, 3);
  for (const int64_t width : {16, 200, 3000}) {
    const int64_t rows = 37;
    TestTensor gate_up(act(), rows, 2 * width, 2), weight(DType::kF32, 1, rows), made(act(), rows, width);
    gate_up.Random(1), weight.Random(3), made.Random(4);
    const SwiGluArgs args = {.gate_up = gate_up, .row_weight = weight, .offsets = existing};
    Coded y(DType::kE5M2, rows, width, {1, 128}, rows), want = y, again = y;
    RunOn(*one_, [&](Backend& b, Stream& s) {
      b.SwiGlu(s, args, made);
      b.Quantize(s, {made, want.operand()});
      b.SwiGlu(s, args, y.operand());
    });
    RunOn(*three_, [&](Backend& b, Stream& s) { b.SwiGlu(s, args, again.operand()); });
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < width; ++c) ASSERT_EQ(y.Code(r, c), r < 33 ? want.Code(r, c) : 0xffu) << r << ", " << c;
      ASSERT_TRUE(r < 33 ? y.scales.at(r, 0) == want.scales.at(r, 0) : std::isnan(y.scales.at(r, 0)));
    }
    EXPECT_TRUE(y.codes == again.codes && y.scales.bytes() == again.scales.bytes());
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, QuantiseTest, testing::ValuesIn(OpCases()), OpCaseName);

}  // namespace
}  // namespace shoestring
