// Tests of products of FP8 operands: bit for bit against the plain loop of the definition on every level, in every
// layout and tile, and within FP32's error of float64.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_features.h"
#include "tests/kernels/reference/fp8.h"

namespace shoestring {
namespace {

// Random codes with random scales; bytes and scales between rows are NaN. How tiles lie: from the top of each of
// `stack` matrices, or from the start of each segment of `offsets`.
class Fp8Matrix {
 public:
  Fp8Matrix(DType dtype, int64_t rows, int64_t cols, Tile tile, uint64_t stream, int64_t stack = 1,
            std::vector<int32_t> offsets = {})
      : dtype_(dtype), rows_(rows), cols_(cols), tile_(tile), stack_(stack), offsets_(std::move(offsets)) {
    const int64_t scale_rows = offsets_.empty() || tile.rows == 1
                                   ? ScaleRows(tile, rows, stack)
                                   : SegmentScaleRows(tile, rows, static_cast<int64_t>(offsets_.size()) - 1);
    scale_ld_ = ScaleColumns(tile, cols) + 2;
    codes_.assign(rows * ld(), std::byte{0xff});
    scales_.assign(scale_rows * scale_ld_, std::numeric_limits<float>::quiet_NaN());
    const Rng rng(23, RngPurpose::kTest, stream);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) SetCode(r, c, static_cast<uint32_t>(rng.Below(r * cols + c, 0x78)));
    }
    for (int64_t r = 0; r < scale_rows; ++r) {
      for (int64_t c = 0; c < scale_ld_ - 2; ++c) {
        const uint64_t index = (uint64_t{1} << 40) + r * scale_ld_ + c;
        scales_[r * scale_ld_ + c] = static_cast<float>(std::ldexp(1 + rng.Uniform(index), (r + c) % 5 - 9));
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        if (rng.Bits64((uint64_t{1} << 41) + r * cols + c) % 2 != 0) SetCode(r, c, Code(r, c) | 0x80);
      }
    }
  }

  void SetCode(int64_t r, int64_t c, uint32_t code) { codes_[r * ld() + c] = static_cast<std::byte>(code); }
  uint32_t Code(int64_t r, int64_t c) const { return static_cast<uint32_t>(codes_[r * ld() + c]); }
  double Value(int64_t r, int64_t c) const { return reference::ValueOf(dtype_, Code(r, c)); }
  float Scale(int64_t r, int64_t c) const { return scales_[ScaleRow(r) * scale_ld_ + c / tile_.cols]; }

  Operand operand() const { return Rows(0, rows_); }
  // Of a matrix that is no stack and has no segments, or of one of a stack's.
  Operand Rows(int64_t first, int64_t count) const {
    const int64_t scale_row = first == 0 ? 0 : ScaleRow(first);
    const int64_t all = static_cast<int64_t>(scales_.size()) / scale_ld_;
    const int64_t scale_rows = count == rows_ ? all : ScaleRows(tile_, count);
    return {ConstView(codes_.data() + first * ld(), dtype_, count, cols_, ld()),
            ConstView(reinterpret_cast<const std::byte*>(scales_.data() + scale_row * scale_ld_), DType::kF32,
                      scale_rows, scale_ld_ - 2, scale_ld_),
            tile_};
  }

 private:
  int64_t ld() const { return cols_ + 3; }
  int64_t ScaleRow(int64_t r) const {
    if (!offsets_.empty() && tile_.rows > 1) {
      const int64_t group = std::upper_bound(offsets_.begin(), offsets_.end(), r) - offsets_.begin() - 1;
      return offsets_[group] / tile_.rows + group + (r - offsets_[group]) / tile_.rows;
    }
    const int64_t each = rows_ / stack_;
    return r / each * ((each + tile_.rows - 1) / tile_.rows) + r % each / tile_.rows;
  }

  DType dtype_;
  int64_t rows_, cols_;
  Tile tile_;
  int64_t stack_;
  std::vector<int32_t> offsets_;
  int64_t scale_ld_ = 0;
  std::vector<std::byte> codes_;
  std::vector<float> scales_;
};

// A result with poison behind its rows.
struct Result {
  Result(DType dtype, int64_t rows, int64_t cols)
      : dtype(dtype), rows(rows), cols(cols), bytes(rows * (cols + 2) * SizeOf(dtype), std::byte{0xff}) {}
  View view() { return {bytes.data(), dtype, rows, cols, cols + 2}; }
  float At(int64_t r, int64_t c) {
    return dtype == DType::kF32 ? view().as<float>(r)[c] : static_cast<float>(view().as<BF16>(r)[c]);
  }
  DType dtype;
  int64_t rows, cols;
  std::vector<std::byte> bytes;
};

struct Mode {
  Isa isa;
  GemmLayout layout;
};

std::vector<Mode> AllModes() {
  std::vector<Mode> modes;
  for (Isa isa : SupportedIsas()) {
    for (GemmLayout layout : {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN}) modes.push_back({isa, layout});
  }
  return modes;
}

struct Problem {
  int64_t m, n, k;
  Fp8Accumulation how = {};
  Tile a_tile = {}, b_tile = {};  // of the stored matrices; {0, 0}: those of the V3 report
  DType a_type = DType::kE4M3, b_type = DType::kE4M3;
  DType c_type = DType::kF32;
  bool accumulate = false;
};

class Fp8GemmTest : public testing::TestWithParam<Mode> {
 protected:
  Fp8GemmTest()
      : one_(MakeCpuBackend({.threads = 1, .isa = GetParam().isa})),
        three_(MakeCpuBackend({.threads = 3, .isa = GetParam().isa, .spin = 0})) {}

  GemmLayout layout() const { return GetParam().layout; }
  bool by_k() const { return layout() == GemmLayout::kTN; }

  Fp8Matrix MakeA(const Problem& p) const {
    const Tile tile = p.a_tile.rows != 0 ? p.a_tile : by_k() ? Tile{128, 1} : Tile{1, 128};
    return by_k() ? Fp8Matrix(p.a_type, p.k, p.m, tile, 1) : Fp8Matrix(p.a_type, p.m, p.k, tile, 1);
  }
  Fp8Matrix MakeB(const Problem& p) const {
    const Tile tile = p.b_tile.rows != 0 ? p.b_tile : by_k() ? Tile{128, 1} : Tile{128, 128};
    return layout() == GemmLayout::kNT ? Fp8Matrix(p.b_type, p.n, p.k, tile, 2)
                                       : Fp8Matrix(p.b_type, p.k, p.n, tile, 2);
  }
  reference::Fp8Dot Want(const Fp8Matrix& a, const Fp8Matrix& b, const Problem& p, int64_t i, int64_t j) const {
    return reference::Fp8Element(p.k, p.how, p.a_type, p.b_type, [&](int64_t k) {
      const auto [ar, ac] = by_k() ? std::pair(k, i) : std::pair(i, k);
      const auto [br, bc] = layout() == GemmLayout::kNT ? std::pair(j, k) : std::pair(k, j);
      return reference::Fp8Term{a.Value(ar, ac), b.Value(br, bc), a.Scale(ar, ac), b.Scale(br, bc)};
    });
  }
  static void Gemm(Backend& backend, GemmLayout layout, const Operand& a, const Operand& b, View c, bool accumulate,
                   const Fp8Accumulation& how) {
    const auto stream = backend.MakeStream();
    backend.Gemm(*stream, layout, a, b, c, accumulate, how);
  }

  void Check(const Problem& p) {
    const Fp8Matrix a = MakeA(p), b = MakeB(p);
    Result c(p.c_type, p.m, p.n);
    const float before = 0.37f;
    for (int64_t i = 0; p.accumulate && i < p.m; ++i) std::fill_n(c.view().as<float>(i), p.n, before);
    Result again = c;
    Gemm(*one_, layout(), a.operand(), b.operand(), c.view(), p.accumulate, p.how);
    Gemm(*three_, layout(), a.operand(), b.operand(), again.view(), p.accumulate, p.how);
    EXPECT_TRUE(c.bytes == again.bytes) << "threads change bits";
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) {
        const reference::Fp8Dot want = Want(a, b, p, i, j);
        const float sum = p.accumulate ? before + want.acc : want.acc;
        ASSERT_EQ(c.At(i, j), p.c_type == DType::kF32 ? sum : static_cast<float>(BF16(sum))) << i << ", " << j;
        // The short accumulator loses up to one of its last places at each of its terms.
        const double error = p.how.hopper ? want.magnitude * 0x1p-13 * 34
                                          : want.magnitude * 0x1p-24 * (4 + 2 * std::sqrt(static_cast<double>(p.k)));
        ASSERT_LE(std::abs(want.acc - want.value), error + 1e-30);
      }
      for (int64_t j = 0; j < 2; ++j) {
        const std::byte* gap = c.bytes.data() + (i * (p.n + 2) + p.n + j) * SizeOf(p.c_type);
        ASSERT_EQ(*gap, std::byte{0xff}) << "wrote between rows";
      }
    }
  }

  std::unique_ptr<Backend> one_, three_;
};

TEST_P(Fp8GemmTest, EqualsTheDefinitionOnRaggedShapes) {
  const int64_t shapes[][3] = {{1, 1, 1},     {3, 5, 2},     {14, 32, 128},  {15, 33, 129},  {29, 17, 96},
                               {2, 2112, 96}, {17, 36, 576}, {3, 140, 1000}, {150, 20, 257}, {2, 3, 2305}};
  for (const auto& [m, n, k] : shapes) {
    SCOPED_TRACE(absl::StrCat("M ", m, " N ", n, " K ", k));
    ASSERT_NO_FATAL_FAILURE(Check({.m = m, .n = n, .k = k}));
  }
}

TEST_P(Fp8GemmTest, EveryPairOfFormatsAndEveryResult) {
  for (DType a : {DType::kE4M3, DType::kE5M2}) {
    for (DType b : {DType::kE4M3, DType::kE5M2}) {
      SCOPED_TRACE(absl::StrCat(Name(a), " times ", Name(b)));
      const Problem p = {.m = 19, .n = 35, .k = 900, .a_type = a, .b_type = b};
      Problem rounded = p, added = p;
      rounded.c_type = DType::kBF16;
      added.accumulate = true;
      for (const Problem& problem : {p, rounded, added}) ASSERT_NO_FATAL_FAILURE(Check(problem));
    }
  }
}

TEST_P(Fp8GemmTest, OtherIntervalsAndTiles) {
  const bool nt = layout() == GemmLayout::kNT;
  for (const int64_t interval : {1, 7, 16, 33, 64, 256, 384}) {
    SCOPED_TRACE(absl::StrCat("interval ", interval));
    Problem p = {.m = 20, .n = 70, .k = 800, .how = {.interval = interval}};
    p.a_tile = by_k() ? Tile{2 * interval, 3} : Tile{5, interval};
    p.b_tile = nt ? Tile{17, 2 * interval} : Tile{interval, 40};
    ASSERT_NO_FATAL_FAILURE(Check(p));
    p.c_type = DType::kBF16;
    ASSERT_NO_FATAL_FAILURE(Check(p));
  }
  // A tile that ends with K need not be a multiple of the interval.
  Problem whole = {.m = 20, .n = 70, .k = 800};
  whole.a_tile = by_k() ? Tile{800, 20} : Tile{1, 800};
  whole.b_tile = nt ? Tile{1, 1000} : Tile{800, 1};
  ASSERT_NO_FATAL_FAILURE(Check(whole));
}

TEST_P(Fp8GemmTest, ShortAccumulatorEqualsItsDefinition) {
  for (DType a : {DType::kE4M3, DType::kE5M2}) {
    for (DType b : {DType::kE4M3, DType::kE5M2}) {
      for (const auto& [m, n, k] : {std::array<int64_t, 3>{17, 35, 128}, {15, 33, 330}, {1, 3, 7}}) {
        SCOPED_TRACE(absl::StrCat(Name(a), " times ", Name(b), " K ", k));
        ASSERT_NO_FATAL_FAILURE(Check({.m = m, .n = n, .k = k, .how = {.hopper = true}, .a_type = a, .b_type = b}));
      }
    }
  }
  Problem p = {.m = 20, .n = 40, .k = 500, .how = {.interval = 48, .hopper = true}};
  p.a_tile = by_k() ? Tile{96, 3} : Tile{5, 96};
  p.b_tile = layout() == GemmLayout::kNT ? Tile{17, 48} : Tile{48, 40};
  p.c_type = DType::kBF16;
  ASSERT_NO_FATAL_FAILURE(Check(p));
}

// What distinguishes the short accumulator: one large product makes the small ones vanish, and the sum drops bits.
TEST_P(Fp8GemmTest, ShortAccumulatorDropsWhatIsSmall) {
  const int64_t k = 33;
  Fp8Matrix a = by_k() ? Fp8Matrix(DType::kE4M3, k, 1, {128, 1}, 1) : Fp8Matrix(DType::kE4M3, 1, k, {1, 128}, 1);
  Fp8Matrix b = layout() == GemmLayout::kNT ? Fp8Matrix(DType::kE4M3, 1, k, {1, 128}, 1)
                                            : Fp8Matrix(DType::kE4M3, k, 1, {128, 1}, 1);
  const auto set = [&](int64_t i, uint32_t left, uint32_t right) {
    by_k() ? a.SetCode(i, 0, left) : a.SetCode(0, i, left);
    layout() == GemmLayout::kNT ? b.SetCode(0, i, right) : b.SetCode(i, 0, right);
  };
  const auto product = [&](const Fp8Accumulation& how) {
    Result c(DType::kF32, 1, 1);
    Gemm(*one_, layout(), a.operand(), b.operand(), c.view(), false, how);
    return c.At(0, 0) / (a.Scale(0, 0) * b.Scale(0, 0));
  };
  for (int64_t i = 0; i < k; ++i) set(i, 0, 0);
  set(0, 0x78, 0x78);   // 256 * 256 = 2^16: what is below 2^3 is dropped
  set(1, 0x48, 0x48);   // 4 * 4 = 2^4 stays
  set(2, 0x48, 0x40);   // 4 * 2 = 2^3 stays
  set(3, 0xc8, 0x38);   // -4 * 1 goes
  set(32, 0xb8, 0x38);  // -1 in the next group goes, because the sum takes part in the alignment
  EXPECT_NEAR(product({.hopper = true}), 65536 + 16 + 8, 0.01);
  EXPECT_NEAR(product({}), 65536 + 16 + 8 - 4 - 1, 0.01);
}

TEST_P(Fp8GemmTest, RowsDoNotDependOnTheRowsBeside) {
  if (by_k()) return;  // a row of the result is a column of a there
  const Problem p = {.m = 70, .n = 50, .k = 700};
  const Fp8Matrix a = MakeA(p), b = MakeB(p);
  Result whole(DType::kF32, p.m, p.n);
  Gemm(*one_, layout(), a.operand(), b.operand(), whole.view(), false, {});
  for (int64_t m = 1; m <= 70; m += 3) {
    const int64_t first = (70 - m) / 2;
    Result part(DType::kF32, m, p.n);
    Gemm(*one_, layout(), a.Rows(first, m), b.operand(), part.view(), false, {});
    const std::byte* same = whole.view().row_bytes(first);
    ASSERT_EQ(std::memcmp(part.bytes.data(), same, part.bytes.size()), 0) << "M " << m;
  }
}

TEST_P(Fp8GemmTest, GroupsEqualOnePlainProductEach) {
  const std::vector<int32_t> offsets = {5, 5, 18, 19, 19, 480, 497, 497};
  const int64_t groups = static_cast<int64_t>(offsets.size()) - 1, rows = 520, n = 72, k = 200;
  const bool nt = layout() == GemmLayout::kNT;
  const Tile tokens = by_k() ? Tile{128, 1} : Tile{1, 128};
  const Fp8Matrix a(DType::kE4M3, rows, nt ? k : n, tokens, 1, 1, offsets);
  const Fp8Matrix b = by_k() ? Fp8Matrix(DType::kE4M3, rows, k, tokens, 2, 1, offsets)
                             : Fp8Matrix(DType::kE4M3, groups * n, k, {64, 64}, 2, groups);
  const Fp8Accumulation how = {.interval = by_k() ? 128 : 64};
  const int64_t c_rows = by_k() ? groups * n : rows, c_cols = nt ? n : k;
  const auto offsets_view = ConstView(reinterpret_cast<const std::byte*>(offsets.data()), DType::kI32, 1, groups + 1);
  for (Backend* backend : {one_.get(), three_.get()}) {
    Result got(DType::kF32, c_rows, c_cols), want(DType::kF32, c_rows, c_cols);
    const auto stream = backend->MakeStream();
    backend->GroupedGemm(*stream, layout(), {offsets_view, groups, rows}, a.operand(), b.operand(), got.view(), false,
                         how);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = offsets[g], count = offsets[g + 1] - first;
      if (by_k()) {
        View c = want.view().Rows(g * n, n);
        if (count == 0) {
          for (int64_t r = 0; r < n; ++r) std::memset(c.row_bytes(r), 0, k * sizeof(float));
          continue;
        }
        Gemm(*backend, layout(), a.Rows(first, count), b.Rows(first, count), c, false, how);
      } else if (count > 0) {
        Gemm(*backend, layout(), a.Rows(first, count), b.Rows(g * n, n), want.view().Rows(first, count), false, how);
      }
    }
    EXPECT_TRUE(got.bytes == want.bytes);
  }
}

TEST_P(Fp8GemmTest, NotANumberArrives) {
  const Problem p = {.m = 9, .n = 20, .k = 300};
  Fp8Matrix a = MakeA(p);
  const Fp8Matrix b = MakeB(p);
  by_k() ? a.SetCode(200, 4, 0x7f) : a.SetCode(4, 200, 0x7f);
  for (const bool hopper : {false, true}) {
    Result c(DType::kF32, p.m, p.n);
    Gemm(*one_, layout(), a.operand(), b.operand(), c.view(), false, {.hopper = hopper});
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) EXPECT_EQ(std::isnan(c.At(i, j)), i == 4);
    }
  }
}

TEST_P(Fp8GemmTest, EveryCodeHasItsValue) {
  // a is one column of all codes (one row of them, transposed), b is one: the product is the value.
  for (DType dtype : {DType::kE4M3, DType::kE5M2}) {
    Fp8Matrix a = by_k() ? Fp8Matrix(dtype, 1, 256, {1, 256}, 1) : Fp8Matrix(dtype, 256, 1, {256, 1}, 1);
    Fp8Matrix b(DType::kE4M3, 1, 1, {1, 1}, 2);
    b.SetCode(0, 0, 0x38);  // 1
    for (int64_t i = 0; i < 256; ++i) by_k() ? a.SetCode(0, i, i) : a.SetCode(i, 0, i);
    Result c(DType::kF32, 256, 1);
    Gemm(*one_, layout(), a.operand(), b.operand(), c.view(), false, {});
    for (int64_t i = 0; i < 256; ++i) {
      const double value = reference::ValueOf(dtype, static_cast<uint32_t>(i));
      const float scale = a.Scale(0, 0) * b.Scale(0, 0);
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(c.At(i, 0))) << i;
      } else {
        EXPECT_EQ(c.At(i, 0), static_cast<float>(value) * scale) << i;
      }
    }
  }
}

std::string ModeName(const testing::TestParamInfo<Mode>& info) {
  const GemmLayout layout = info.param.layout;
  return absl::StrCat(IsaName(info.param.isa), "_",
                      layout == GemmLayout::kNT   ? "NT"
                      : layout == GemmLayout::kNN ? "NN"
                                                  : "TN");
}
INSTANTIATE_TEST_SUITE_P(Modes, Fp8GemmTest, testing::ValuesIn(AllModes()), ModeName);

}  // namespace
}  // namespace shoestring
