// Tests of the CPU matrix products at every instruction-set level: against float64, and for the promise about bits.
#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "gtest/gtest.h"
#include "tests/kernels/reference/gemm.h"

namespace shoestring {
namespace {

// A row-major matrix of either dtype in raw bytes; padding between rows holds NaN so that reading it shows.
struct Matrix {
  Matrix(DType dtype, int64_t rows, int64_t columns, int64_t padding)
      : dtype(dtype), rows(rows), columns(columns), ld(columns + padding), bytes((rows * ld + 1) * SizeOf(dtype)) {
    for (int64_t i = 0; i < rows * ld; ++i) SetFlat(i, std::numeric_limits<float>::quiet_NaN());
  }
  void SetFlat(int64_t i, float x) {
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(bytes.data())[i] = x;
    } else {
      reinterpret_cast<BF16*>(bytes.data())[i] = BF16(x);
    }
  }
  void FillRandom(uint64_t stream) {
    const Rng rng(7, RngPurpose::kTest, stream);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c)
        SetFlat(r * ld + c, static_cast<float>(2 * rng.Uniform(r * columns + c) - 1));
    }
  }
  double At(int64_t r, int64_t c) const { return reference::At(bytes.data(), dtype, ld, r, c); }
  void* Row(int64_t r) { return bytes.data() + r * ld * SizeOf(dtype); }

  DType dtype;
  int64_t rows, columns, ld;
  std::vector<char> bytes;
};

struct Product {
  Product(GemmLayout layout, DType in, DType out, int64_t m, int64_t n, int64_t k, int64_t padding = 3)
      : layout(layout),
        m(m),
        n(n),
        k(k),
        a(layout == GemmLayout::kTN ? Matrix(in, k, m, padding) : Matrix(in, m, k, padding)),
        b(layout == GemmLayout::kNT ? Matrix(in, n, k, padding) : Matrix(in, k, n, padding)),
        c(out, m, n, padding) {
    a.FillRandom(1);
    b.FillRandom(2);
  }
  GemmCall Call(bool accumulate = false) {
    return {layout, m, n, k, a.dtype, a.Row(0), a.ld, b.Row(0), b.ld, c.dtype, c.Row(0), c.ld, accumulate};
  }
  GemmLayout layout;
  int64_t m, n, k;
  Matrix a, b, c;
};

// |got - want| <= tolerance: FP32 accumulation, relative to the sum of magnitudes, and one rounding of the result.
void ExpectNear(double got, double old, const reference::Dot& want, int64_t k, DType out, const std::string& where) {
  const double exact = old + want.value;
  const double sum_error = (std::abs(old) + want.magnitude) * 0x1p-24 * (4 + 2 * std::sqrt(static_cast<double>(k)));
  const double rounding = std::abs(exact) * (out == DType::kF32 ? 0x1p-24 : 0x1p-8);
  ASSERT_LE(std::abs(got - exact), sum_error + rounding + 1e-30) << where << " got " << got << " want " << exact;
}

void ExpectProduct(const Product& p, const std::string& where) {
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      const auto want =
          reference::GemmElement(p.layout, p.k, p.a.bytes.data(), p.a.ld, p.b.bytes.data(), p.b.ld, p.a.dtype, i, j);
      ASSERT_NO_FATAL_FAILURE(ExpectNear(p.c.At(i, j), 0, want, p.k, p.c.dtype, where));
    }
    for (int64_t j = p.n; j < p.c.ld; ++j) ASSERT_TRUE(std::isnan(p.c.At(i, j))) << where << ": wrote between rows";
  }
}

struct Mode {
  Isa isa;
  GemmLayout layout;
  DType in, out;
};

std::string LayoutName(GemmLayout layout) {
  return layout == GemmLayout::kNT ? "NT" : layout == GemmLayout::kNN ? "NN" : "TN";
}

std::vector<Mode> AllModes() {
  std::vector<Mode> modes;
  for (Isa isa : SupportedIsas()) {
    for (GemmLayout layout : {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN}) {
      modes.push_back({isa, layout, DType::kF32, DType::kF32});
      modes.push_back({isa, layout, DType::kBF16, DType::kBF16});
      modes.push_back({isa, layout, DType::kBF16, DType::kF32});
    }
  }
  return modes;
}

class GemmTest : public testing::TestWithParam<Mode> {
 protected:
  Product Make(int64_t m, int64_t n, int64_t k) const {
    return Product(GetParam().layout, GetParam().in, GetParam().out, m, n, k);
  }
};

TEST_P(GemmTest, AgreesWithFloat64OnOddShapes) {
  ThreadPool pool(1);
  CpuGemm gemm(&pool, GetParam().isa);
  const int64_t shapes[][3] = {{0, 5, 3},    {1, 1, 1},    {3, 0, 4},     {5, 7, 1},     {14, 32, 2},   {15, 33, 17},
                               {29, 16, 31}, {1, 100, 65}, {70, 17, 130}, {13, 64, 385}, {31, 47, 769}, {2, 3, 1601}};
  for (const auto& shape : shapes) {
    Product p = Make(shape[0], shape[1], shape[2]);
    gemm.Run(p.Call());
    ExpectProduct(p, "M" + std::to_string(p.m) + " N" + std::to_string(p.n) + " K" + std::to_string(p.k));
  }
}

TEST_P(GemmTest, SeveralTasksAndBlocksOfAllKinds) {
  ThreadPool pool(2);
  CpuGemm gemm(&pool, GetParam().isa);
  Product p = Make(512, 530, 800);
  gemm.Run(p.Call());
  for (int64_t i = 0; i < p.m; i += 61) {
    for (int64_t j = 0; j < p.n; j += 37) {
      const auto want = reference::GemmElement(p.layout, p.k, p.a.Row(0), p.a.ld, p.b.Row(0), p.b.ld, p.a.dtype, i, j);
      ASSERT_NO_FATAL_FAILURE(ExpectNear(p.c.At(i, j), 0, want, p.k, p.c.dtype, "large"));
    }
  }
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) ASSERT_FALSE(std::isnan(p.c.At(i, j)));
  }
}

TEST_P(GemmTest, EmptySumAssignsZeroAndAddsNothing) {
  ThreadPool pool(1);
  CpuGemm gemm(&pool, GetParam().isa);
  Product p = Make(5, 6, 0);
  gemm.Run(p.Call());
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) EXPECT_EQ(p.c.At(i, j), 0.0);
  }
  if (p.c.dtype != DType::kF32) return;
  p.c.FillRandom(9);
  const std::vector<char> before = p.c.bytes;
  gemm.Run(p.Call(/*accumulate=*/true));
  EXPECT_EQ(p.c.bytes, before);
}

TEST_P(GemmTest, AccumulatingAddsExactlyWhatAssigningStores) {
  if (GetParam().out != DType::kF32) return;
  ThreadPool pool(1);
  CpuGemm gemm(&pool, GetParam().isa);
  for (int64_t k : {1, 100, 900}) {
    Product p = Make(37, 45, k);
    gemm.Run(p.Call());
    Matrix sum(DType::kF32, p.m, p.n, 3);
    sum.FillRandom(5);
    Product q = p;
    q.c = sum;
    gemm.Run(q.Call(/*accumulate=*/true));
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) {
        const float want = static_cast<float>(sum.At(i, j)) + static_cast<float>(p.c.At(i, j));
        ASSERT_EQ(static_cast<float>(q.c.At(i, j)), want) << "K" << k;
      }
    }
  }
}

TEST_P(GemmTest, RowsDoNotDependOnTheRowsBeside) {
  ThreadPool pool(1);
  CpuGemm gemm(&pool, GetParam().isa);
  for (int64_t k : {33, 800}) {
    Product whole = Make(70, 50, k);
    gemm.Run(whole.Call());
    for (int64_t m = 1; m <= 70; ++m) {
      const int64_t first = (70 - m) / 2;  // another size and another place in the tile
      Matrix part(whole.c.dtype, m, 50, 0);
      GemmCall call = whole.Call();
      call.m = m;
      const int64_t skip =
          whole.layout == GemmLayout::kTN ? first * SizeOf(whole.a.dtype) : first * whole.a.ld * SizeOf(whole.a.dtype);
      call.a = static_cast<const char*>(call.a) + skip;
      call.c = part.Row(0);
      call.ldc = part.ld;
      gemm.Run(call);
      for (int64_t i = 0; i < m; ++i) {
        ASSERT_EQ(std::memcmp(part.Row(i), whole.c.Row(first + i), 50 * SizeOf(part.dtype)), 0) << "M " << m;
      }
    }
  }
}

TEST_P(GemmTest, ThreadsDoNotChangeBits) {
  const int64_t shapes[][3] = {{17, 700, 400}, {500, 40, 900}, {300, 300, 300}};
  for (const auto& shape : shapes) {
    Product p = Make(shape[0], shape[1], shape[2]);
    std::vector<char> first;
    for (int threads : {1, 2, 3, 7}) {
      ThreadPool pool(threads, 0);
      CpuGemm gemm(&pool, GetParam().isa);
      std::fill(p.c.bytes.begin(), p.c.bytes.end(), static_cast<char>(0xFF));
      gemm.Run(p.Call());
      if (threads == 1) first = p.c.bytes;
      EXPECT_EQ(p.c.bytes, first) << threads << " threads";
    }
  }
}

TEST_P(GemmTest, NotANumberAndInfinityArrive) {
  ThreadPool pool(1);
  CpuGemm gemm(&pool, GetParam().isa);
  Product p = Make(9, 20, 7);
  p.a.SetFlat(0, std::numeric_limits<float>::quiet_NaN());  // element (0, 0) in every layout
  p.b.SetFlat(0, std::numeric_limits<float>::infinity());
  gemm.Run(p.Call());
  for (int64_t j = 0; j < p.n; ++j) EXPECT_TRUE(std::isnan(p.c.At(0, j)));
  for (int64_t i = 1; i < p.m; ++i) {
    EXPECT_TRUE(std::isinf(p.c.At(i, 0)));
    for (int64_t j = 1; j < p.n; ++j) EXPECT_TRUE(std::isfinite(p.c.At(i, j)));
  }
}

std::string ModeName(const testing::TestParamInfo<Mode>& info) {
  const Mode& mode = info.param;
  return std::string(IsaName(mode.isa)) + "_" + LayoutName(mode.layout) + "_" + Name(mode.in) + "_" + Name(mode.out);
}
INSTANTIATE_TEST_SUITE_P(Modes, GemmTest, testing::ValuesIn(AllModes()), ModeName);

}  // namespace
}  // namespace shoestring
