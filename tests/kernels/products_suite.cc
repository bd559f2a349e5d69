// The cases and expectations of products_suite.h.
#include "tests/kernels/products_suite.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/gemm_config.h"
#include "tests/kernels/reference/attention.h"
#include "tests/kernels/reference/fp8.h"
#include "tests/kernels/reference/gemm.h"

namespace shoestring {
namespace {

// Codes, and scales that differ widely from tile to tile in both directions: none may be taken for another.
struct Fp8Operand {
  Fp8Operand(DType dtype, int64_t rows, int64_t cols, Tile tile, int64_t scale_rows, int64_t gap, uint64_t stream)
      : codes(dtype, rows, cols, gap), scales(DType::kF32, scale_rows, ScaleColumns(tile, cols), 2), tile(tile) {
    codes.Random(stream);
    scales.Random(stream + 1000);
    for (int64_t r = 0; r < scale_rows; ++r) {
      for (int64_t c = 0; c < scales.view().cols; ++c) {
        float& x = scales.view().as<float>(r)[c];
        x = std::ldexp(1 + std::abs(x), static_cast<int>((3 * r + 5 * c) % 9) - 9);
      }
    }
  }
  Operand operand() const { return {codes.view(), scales.view(), tile}; }
  HostMatrix codes, scales;
  Tile tile;
};

struct Extents {
  int64_t rows, cols;
};
Extents ShapeOfA(const ProductCase& c) { return c.by_tokens() ? Extents{c.k, c.m} : Extents{c.m, c.k}; }
// Of one matrix of the stack.
Extents ShapeOfB(const ProductCase& c) { return c.layout == GemmLayout::kNT ? Extents{c.n, c.k} : Extents{c.k, c.n}; }
int64_t StackOf(const ProductCase& c) { return c.groups() > 0 && !c.by_tokens() ? c.groups() : 1; }
int64_t RowsOfC(const ProductCase& c) { return c.groups() > 0 && c.by_tokens() ? c.groups() * c.m : c.m; }

Segments SegmentsOf(const ProductCase& c) {
  if (c.groups() == 0) return {};
  const auto* bytes = reinterpret_cast<const std::byte*>(c.offsets.data());
  return {ConstView(bytes, DType::kI32, 1, c.groups() + 1), c.groups(), ShapeOfA(c).rows};
}

void MultiplyOnCpu(const ProductCase& c, const Operand& a, const Operand& b, View out) {
  static Backend* const cpu = MakeCpuBackend({.threads = 1}).release();
  const std::unique_ptr<Stream> stream = cpu->MakeStream();
  if (c.groups() == 0) return cpu->Gemm(*stream, c.layout, a, b, out, c.accumulate, c.how);
  cpu->GroupedGemm(*stream, c.layout, SegmentsOf(c), a, b, out, c.accumulate, c.how);
}

Fp8Operand MakeFp8(const ProductCase& c, bool second) {
  const Extents shape = second ? ShapeOfB(c) : ShapeOfA(c);
  const int64_t stack = second ? StackOf(c) : 1;
  const int64_t interval = c.how.interval;
  const Tile tile = c.by_tokens() ? Tile{interval, 1} : second ? Tile{interval, interval} : Tile{1, interval};
  const int64_t rows = stack * shape.rows;
  const int64_t scale_rows =
      c.groups() > 0 && c.by_tokens() ? SegmentScaleRows(tile, rows, c.groups()) : ScaleRows(tile, rows, stack);
  return Fp8Operand(second ? DType::kE4M3 : c.a_type, rows, shape.cols, tile, scale_rows, c.gap, second ? 2 : 1);
}

// The same with codes and scales made positive: their product bounds the sum of the terms' magnitudes.
HostMatrix Magnitudes(const ProductCase& c, const Fp8Operand& a, const Fp8Operand& b) {
  Fp8Operand left = a, right = b;
  for (Fp8Operand* x : {&left, &right}) {
    const View codes = x->codes.view();
    for (int64_t r = 0; r < codes.rows; ++r) {
      for (int64_t i = 0; i < codes.cols; ++i) codes.row_bytes(r)[i] &= std::byte{0x7f};
    }
  }
  HostMatrix sums(DType::kF32, RowsOfC(c), c.n, 0);
  ProductCase exact = c;
  exact.accumulate = false;
  exact.how.hopper = false;
  MultiplyOnCpu(exact, left.operand(), right.operand(), sums.view());
  return sums;
}

bool IsPlain(const ProductCase& c, const Operand& a, const Operand& b, const View& out) {
  const cuda::ProductDescription d = cuda::Describe(c.layout, SegmentsOf(c), a, b, out, c.accumulate, c.how);
  return cuda::Configure(d, {}).route == cuda::ProductRoute::kPlain;
}

// docs/numerics.md, "On Hopper": one last place of the short accumulator for each of its terms.
void ExpectWithinShortAccumulator(const HostMatrix& got, const HostMatrix& want, const HostMatrix& magnitudes) {
  const bool bf16 = want.view().dtype == DType::kBF16;
  for (int64_t r = 0; r < want.view().rows; ++r) {
    for (int64_t j = 0; j < want.view().cols; ++j) {
      const double expected = want.at(r, j);
      if (std::isnan(expected)) {  // a row of nobody
        ASSERT_TRUE(std::isnan(got.at(r, j))) << r << ", " << j;
        continue;
      }
      const double limit = magnitudes.at(r, j) * 34 * 0x1p-13 + std::abs(expected) * (bf16 ? 0x1p-7 : 0x1p-22) + 1e-30;
      ASSERT_LE(std::abs(got.at(r, j) - expected), limit) << r << ", " << j << " is " << got.at(r, j);
    }
  }
}

void ShowDifferences(const HostMatrix& got, const HostMatrix& want) {
  int shown = 0;
  for (int64_t r = 0; r < want.view().rows; ++r) {
    for (int64_t j = 0; j < want.view().cols; ++j) {
      const double is = got.at(r, j), must = want.at(r, j);
      if (is == must || (std::isnan(is) && std::isnan(must)) || ++shown > 4) continue;
      ADD_FAILURE() << r << ", " << j << " is " << is << ", must be " << must;
    }
  }
}

void ExpectClose(const std::vector<double>& got, const std::vector<double>& want, double tolerance, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  double squares = 0;
  for (const double x : want) squares += x * x;
  const double rms = std::sqrt(squares / static_cast<double>(want.size())) + 1e-20;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - want[i]), tolerance * std::max(rms, std::abs(want[i]))) << what << " at " << i;
  }
}

}  // namespace

// --- matrices -------------------------------------------------------------------------------------------------------

HostMatrix::HostMatrix(DType dtype, int64_t rows, int64_t cols, int64_t gap)
    : bytes_(BytesOf(dtype, rows * (cols + gap)) + 512, std::byte{0xff}),
      view_(Base(), dtype, rows, cols, cols + gap) {}

HostMatrix::HostMatrix(const HostMatrix& other) : bytes_(other.bytes_), view_(other.view_) {
  view_.data = Base();  // which may lie elsewhere in the bytes
  std::fill(bytes_.begin(), bytes_.end(), std::byte{0xff});
  for (int64_t r = 0; r < view_.rows; ++r) std::memcpy(view_.row_bytes(r), other.view_.row_bytes(r), row_size());
}

double HostMatrix::at(int64_t row, int64_t col) const {
  switch (view_.dtype) {
    case DType::kF32: return view_.as<float>(row)[col];
    case DType::kBF16: return static_cast<float>(view_.as<BF16>(row)[col]);
    default: return reference::ValueOf(view_.dtype, static_cast<uint32_t>(view_.row_bytes(row)[col]));
  }
}

HostMatrix& HostMatrix::Random(uint64_t stream) {
  const Rng rng(77, RngPurpose::kTest, stream);
  constexpr uint64_t kSigns = uint64_t{1} << 40;
  for (int64_t r = 0; r < view_.rows; ++r) {
    for (int64_t c = 0; c < view_.cols; ++c) {
      const auto i = static_cast<uint64_t>(r * view_.cols + c);
      if (view_.dtype == DType::kF32) {
        view_.as<float>(r)[c] = static_cast<float>(rng.Normal(i));
      } else if (view_.dtype == DType::kBF16) {
        view_.as<BF16>(r)[c] = BF16(static_cast<float>(rng.Normal(i)));
      } else {
        const uint64_t code = rng.Below(i, 0x78) | (rng.Bits64(kSigns + i) & 0x80);
        view_.row_bytes(r)[c] = static_cast<std::byte>(code);
      }
    }
  }
  return *this;
}

bool HostMatrix::SameBits(const HostMatrix& other) const {
  for (int64_t r = 0; r < view_.rows; ++r) {
    if (std::memcmp(view_.row_bytes(r), other.view_.row_bytes(r), row_size()) != 0) return false;
  }
  return true;
}

bool HostMatrix::GapsUntouched() const {
  for (int64_t r = 0; r + 1 < view_.rows; ++r) {
    const std::byte* const row = view_.row_bytes(r);
    const int64_t end = BytesOf(view_.dtype, view_.stride);
    if (std::any_of(row + row_size(), row + end, [](std::byte b) { return b != std::byte{0xff}; })) return false;
  }
  return true;
}

std::vector<double> HostMatrix::Values() const {
  std::vector<double> values;
  for (int64_t r = 0; r < view_.rows; ++r) {
    for (int64_t c = 0; c < view_.cols; ++c) values.push_back(at(r, c));
  }
  return values;
}

std::string Name(const ProductCase& c) {
  const char* layout = c.layout == GemmLayout::kNT ? "NT" : c.layout == GemmLayout::kNN ? "NN" : "TN";
  return absl::StrCat(layout, " ", c.m, "x", c.n, "x", c.k, " groups ", c.groups(), " gap ", c.gap, " ", Name(c.a_type),
                      c.accumulate ? " +> " : " -> ", Name(c.c_type), " interval ", c.how.interval,
                      c.how.hopper ? " short" : "");
}

// --- expectations ---------------------------------------------------------------------------------------------------

void ExpectFp8Product(ProductRunner& runner, const ProductCase& c) {
  SCOPED_TRACE(Name(c));
  const Fp8Operand a = MakeFp8(c, false), b = MakeFp8(c, true);
  HostMatrix got(c.c_type, RowsOfC(c), c.n, c.gap);
  if (c.accumulate) got.Random(3);
  HostMatrix want = got;
  runner.Multiply(c, a.operand(), b.operand(), got.view());
  MultiplyOnCpu(c, a.operand(), b.operand(), want.view());
  EXPECT_TRUE(got.GapsUntouched());
  if (!runner.exact() && !IsPlain(c, a.operand(), b.operand(), got.view())) {
    return ExpectWithinShortAccumulator(got, want, Magnitudes(c, a, b));
  }
  EXPECT_TRUE(got.SameBits(want));
  if (!got.SameBits(want)) ShowDifferences(got, want);
}

void ExpectProduct(ProductRunner& runner, const ProductCase& c) {
  SCOPED_TRACE(Name(c));
  const DType type = c.a_type;
  const Extents a_shape = ShapeOfA(c), b_shape = ShapeOfB(c);
  const bool nt = c.layout == GemmLayout::kNT, grouped = c.groups() > 0;
  HostMatrix a(type, a_shape.rows, a_shape.cols, c.gap), b(type, StackOf(c) * b_shape.rows, b_shape.cols, c.gap);
  a.Random(1);
  b.Random(2);
  HostMatrix got(c.c_type, RowsOfC(c), c.n, c.gap);
  if (c.accumulate) got.Random(3);
  const HostMatrix before = got;
  runner.Multiply(c, a.view(), b.view(), got.view());
  EXPECT_TRUE(got.GapsUntouched());
  for (int64_t g = 0; g < std::max<int64_t>(1, c.groups()); ++g) {
    const int64_t first = grouped ? c.offsets[g] : 0;
    const int64_t count = grouped ? c.offsets[g + 1] - first : a_shape.rows;
    const int64_t rows = c.by_tokens() ? c.m : count, k = c.by_tokens() ? count : c.k;
    const std::byte* const left = a.view().row_bytes(first);
    const std::byte* const right = b.view().row_bytes(c.by_tokens() ? first : g * (nt ? c.n : c.k));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        const auto want =
            reference::GemmElement(c.layout, k, left, a.view().stride, right, b.view().stride, type, i, j);
        const int64_t row = c.by_tokens() ? g * c.m + i : first + i;
        const double old = c.accumulate ? before.at(row, j) : 0, exact = want.value + old;
        // FP32 sums in any order, and one rounding of the result.
        const double sums = (want.magnitude + std::abs(old)) * 0x1p-24 * (4 + 2 * std::sqrt(static_cast<double>(k)));
        const double rounding = std::abs(exact) * (c.c_type == DType::kBF16 ? 0x1p-8 : 0x1p-24);
        ASSERT_LE(std::abs(got.at(row, j) - exact), sums + rounding + 1e-30) << "group " << g << ": " << i << ", " << j;
      }
    }
  }
}

void ExpectNoLeaks(ProductRunner& runner, GemmLayout layout, DType type) {
  ProductCase c = {.layout = layout, .m = 160, .n = 64, .k = 72, .offsets = {0, 70, 70, 100}, .a_type = type};
  if (c.by_tokens()) c.m = 72, c.k = 160;
  SCOPED_TRACE(Name(c));
  HostMatrix a(type, 160, 72, 0), b(type, c.by_tokens() ? 160 : 3 * ShapeOfB(c).rows, ShapeOfB(c).cols, 0);
  a.Random(1);
  b.Random(2);
  const auto poison = [](const View& rows) {
    std::memset(rows.data, 0xff, BytesOf(rows.dtype, rows.rows * rows.stride));
  };
  poison(a.view().Rows(100, 60));
  poison(c.by_tokens() ? b.view().Rows(100, 60) : b.view().Rows(ShapeOfB(c).rows, ShapeOfB(c).rows));
  HostMatrix got(DType::kF32, RowsOfC(c), 64, 0);
  runner.Multiply(c, a.view(), b.view(), got.view());
  for (int64_t r = 0; r < RowsOfC(c); ++r) {
    const bool exists = c.by_tokens() || r < 100;
    for (int64_t j = 0; j < 64; ++j) ASSERT_EQ(std::isnan(got.at(r, j)), !exists) << r << ", " << j;
  }
}

void ExpectAttention(ProductRunner& runner, const AttentionCase& c) {
  const AttentionShape& s = c.shape;
  SCOPED_TRACE(absl::StrCat("T ", s.tokens, " S ", s.sequence_length, " H ", s.heads, " ", s.nope_dim, "+", s.rope_dim,
                            "/", s.value_dim, " ", Name(c.act), c.documents ? " documents" : ""));
  const int64_t q_cols = s.heads * (s.nope_dim + s.rope_dim), kv_cols = s.heads * (s.nope_dim + s.value_dim);
  // Where rows are 16 bytes apart anyway, they stay so: cuDNN asks for it.
  const auto gap = [&](int64_t odd) { return s.nope_dim % 8 == 0 ? 8 * odd : odd; };
  HostMatrix q(c.act, s.tokens, q_cols, gap(3)), kv(c.act, s.tokens, kv_cols, gap(1)),
      k_rope(c.act, s.tokens, s.rope_dim, 5);
  HostMatrix out(c.act, s.tokens, s.heads * s.value_dim, gap(2)), d_out(c.act, s.tokens, s.heads * s.value_dim, gap(4));
  HostMatrix lse(DType::kF32, s.tokens, s.heads, 1), d_k_rope(c.act, s.tokens, s.rope_dim, 1);
  HostMatrix d_q(c.act, s.tokens, q_cols, gap(2)), d_kv(c.act, s.tokens, kv_cols, gap(7));
  q.Random(1), kv.Random(2), k_rope.Random(3), d_out.Random(4);
  std::vector<int32_t> first_visible;
  for (int64_t t = 0; c.documents && t < s.tokens; ++t) {
    first_visible.push_back(static_cast<int32_t>(t % s.sequence_length / 7 * 7));
  }
  AttentionArgs args;
  args.shape = s;
  args.scale = 1 / std::sqrt(static_cast<double>(s.nope_dim + s.rope_dim));
  args.q = q.view(), args.kv = kv.view(), args.k_rope = k_rope.view();
  if (c.documents) {
    const auto* bytes = reinterpret_cast<const std::byte*>(first_visible.data());
    args.first_visible = ConstView(bytes, DType::kI32, 1, s.tokens);
  }
  const int64_t bytes = std::max(runner.AttentionWorkspaceBytes(s, false), runner.AttentionWorkspaceBytes(s, true));
  const HostMatrix workspace(DType::kU8, 1, std::max<int64_t>(1, bytes), 0);
  runner.AttentionForward(args, out.view(), lse.view(), workspace.view());
  const AttentionBackwardArgs grads = {out.view(), lse.view(), d_out.view(), d_q.view(), d_kv.view(), d_k_rope.view()};
  runner.AttentionBackward(args, grads, workspace.view());
  const reference::AttentionInput input = {
      s, static_cast<float>(args.scale), q.Values(), kv.Values(), k_rope.Values(), first_visible};
  const reference::AttentionOutput want = reference::Attention(input);
  const reference::AttentionGradients want_grads = reference::AttentionBackward(input, d_out.Values());
  ExpectClose(out.Values(), want.out, c.tolerance, "out");
  ExpectClose(lse.Values(), want.lse, 1e-5, "lse");  // FP32 in both dtypes
  ExpectClose(d_kv.Values(), want_grads.d_kv, c.tolerance, "d_kv");
  if (s.sequence_length > 1) {
    ExpectClose(d_q.Values(), want_grads.d_q, c.tolerance, "d_q");
    ExpectClose(d_k_rope.Values(), want_grads.d_k_rope, c.tolerance, "d_k_rope");
  }
  for (const HostMatrix* m : {&out, &lse, &d_q, &d_kv, &d_k_rope}) EXPECT_TRUE(m->GapsUntouched());
}

// --- cases ----------------------------------------------------------------------------------------------------------

const std::vector<int32_t>& RaggedOffsets() {
  static const auto* const offsets = new std::vector<int32_t>{3, 3, 8, 9, 9, 150, 281, 281};
  return *offsets;
}

std::vector<ProductCase> Fp8Cases() {
  using enum GemmLayout;
  using enum DType;
  const std::vector<int32_t>& ragged = RaggedOffsets();
  std::vector<ProductCase> cases = {
      // Tensor cores, by experts.
      {kNT, 300, 144, 272, ragged},
      {kNT, 300, 144, 272, ragged, 16, kE5M2, kBF16},
      {kNN, 300, 144, 272, ragged},
      {kNN, 300, 136, 200, ragged, 16, kE5M2, kBF16},
      {kTN, 144, 160, 300, ragged},
      {kTN, 144, 160, 300, ragged, 0, kE5M2, kF32, true},
      {kTN, 130, 67, 300, ragged, 3, kE4M3, kF32, true},  // nothing aligned
      {kTN, 144, 160, 300, {7, 7, 7}},                    // no tokens at all
      // A workspace that holds the copies of a part only.
      {kNN, 300, 512, 256, ragged, 0, kE4M3, kF32, false, {}, 600 << 10},
      {kTN, 300, 256, 300, ragged, 0, kE4M3, kF32, true, {}, 500 << 10},
  };
  for (const GemmLayout layout : {kNT, kNN, kTN}) {
    // The library; then what it refuses, by tensor cores; then the plain kernel.
    cases.push_back({layout, 48, 144, 272, {}, 16});
    cases.push_back({layout, 48, 144, 272, {}, 0, kE4M3, layout == kTN ? kF32 : kBF16, layout == kTN});
    cases.push_back({layout, 37, 150, 272, {}, 0});
    for (const bool hopper : {false, true}) {
      const Fp8Accumulation other = {.interval = 64, .hopper = hopper};
      cases.push_back({layout, 21, 35, 300, {}, 3, kE4M3, kF32, true, other});
      cases.push_back(
          {layout, layout == kTN ? 40 : 300, 35, layout == kTN ? 300 : 130, ragged, 3, kE5M2, kF32, false, other});
    }
  }
  return cases;
}

std::vector<ProductCase> PlainTypeCases() {
  using enum GemmLayout;
  using enum DType;
  const std::vector<int32_t>& ragged = RaggedOffsets();
  std::vector<ProductCase> cases;
  for (const int64_t gap : {0, 8, 3}) {  // 3: refused by tensor cores, so multiplied by the plain kernel
    cases.push_back({kNT, 300, 144, 200, ragged, gap, kBF16});
    cases.push_back({kNN, 300, 144, 200, ragged, gap, kBF16, kBF16});
    cases.push_back({kTN, 144, 136, 300, ragged, gap, kBF16, kF32, true});
    cases.push_back({kTN, 144, 136, 300, ragged, gap, kBF16});
    for (const GemmLayout layout : {kNT, kNN, kTN}) {
      for (const DType type : {kBF16, kF32}) {
        cases.push_back({layout, 29, 47, 130, {}, gap, type, type});
        cases.push_back({layout, 64, 32, 96, {}, gap, type, kF32, true});
      }
    }
  }
  cases.push_back({kNT, 300, 37, 50, ragged, 3, kF32});
  cases.push_back({kTN, 21, 37, 300, ragged, 3, kF32, kF32, true});
  return cases;
}

std::vector<AttentionCase> AttentionCases() {
  std::vector<AttentionCase> cases;
  for (const DType act : {DType::kF32, DType::kBF16}) {
    const double tolerance = act == DType::kF32 ? 2e-5 : 6e-2;
    for (const bool documents : {false, true}) {
      cases.push_back({{2 * 70, 70, 2, 16, 8, 16}, act, documents, tolerance});
      cases.push_back({{3 * 7, 7, 2, 5, 3, 7}, act, documents, tolerance});
      cases.push_back({{2, 1, 1, 8, 4, 8}, act, documents, tolerance});
    }
  }
  return cases;
}

}  // namespace shoestring
