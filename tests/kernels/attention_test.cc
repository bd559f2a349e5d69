// Tests of CPU attention at every instruction-set level: forward and gradients against float64, and bits over threads.
#include "kernels/cpu/attention.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "gtest/gtest.h"
#include "tests/kernels/reference/attention.h"
#include "tests/kernels/reference/gemm.h"

namespace shoestring {
namespace {

struct Case {
  Isa isa;
  DType dtype;
  int64_t sequences, length, heads, nope, rope, value;
  bool documents;
  // Largest permitted |error| / (root mean square of the tensor). f32: rounding of sums. bf16: weights and gradients of
  // the scores carry 8 bits, and every output is rounded to 8 bits.
  double tolerance;
};

class Tensor {
 public:
  Tensor(DType dtype, int64_t rows, int64_t columns, int64_t padding)
      : dtype_(dtype),
        rows_(rows),
        columns_(columns),
        ld_(columns + padding),
        bytes_((rows * ld_ + 1) * SizeOf(dtype)) {
    for (int64_t i = 0; i < rows * ld_; ++i) Set(i, std::numeric_limits<float>::quiet_NaN());
  }
  void Fill(uint64_t stream) {
    const Rng rng(3, RngPurpose::kTest, stream);
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) Set(r * ld_ + c, static_cast<float>(rng.Normal(r * columns_ + c)));
    }
  }
  std::vector<double> Values() const {
    std::vector<double> values;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) values.push_back(reference::At(bytes_.data(), dtype_, ld_, r, c));
    }
    return values;
  }
  void* data() { return bytes_.data(); }
  int64_t ld() const { return ld_; }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  void Set(int64_t i, float x) {
    if (dtype_ == DType::kF32) {
      reinterpret_cast<float*>(bytes_.data())[i] = x;
    } else {
      reinterpret_cast<BF16*>(bytes_.data())[i] = BF16(x);
    }
  }
  DType dtype_;
  int64_t rows_, columns_, ld_;
  std::vector<char> bytes_;
};

AttentionShape ShapeOf(const Case& c) { return {c.sequences * c.length, c.length, c.heads, c.nope, c.rope, c.value}; }

struct Problem {
  explicit Problem(const Case& c)
      : shape(ShapeOf(c)),
        q(c.dtype, shape.tokens, c.heads * (c.nope + c.rope), 3),
        kv(c.dtype, shape.tokens, c.heads * (c.nope + c.value), 1),
        k_rope(c.dtype, shape.tokens, c.rope, 5),
        out(c.dtype, shape.tokens, c.heads * c.value, 2),
        lse(DType::kF32, shape.tokens, c.heads, 1),
        d_out(c.dtype, shape.tokens, c.heads * c.value, 4),
        d_q(c.dtype, shape.tokens, c.heads * (c.nope + c.rope), 2),
        d_kv(c.dtype, shape.tokens, c.heads * (c.nope + c.value), 7),
        d_k_rope(c.dtype, shape.tokens, c.rope, 1),
        dtype(c.dtype) {
    q.Fill(1);
    kv.Fill(2);
    k_rope.Fill(3);
    d_out.Fill(4);
    if (!c.documents) return;
    // A new document every few tokens, of lengths that grow; sequences differ.
    for (int64_t t = 0, start = 0, next = 1; t < shape.tokens; ++t) {
      const int64_t position = t % c.length;
      if (position == 0) start = 0, next = 1 + t / c.length;
      if (position == next) start = position, next = 2 * next + 3;
      first_visible.push_back(static_cast<int32_t>(start));
    }
  }
  CpuAttentionCall Call() {
    CpuAttentionCall call;
    call.shape = shape;
    call.dtype = dtype;
    call.scale = static_cast<float>(scale());
    call.q = q.data(), call.q_ld = q.ld();
    call.kv = kv.data(), call.kv_ld = kv.ld();
    call.k_rope = k_rope.data(), call.k_rope_ld = k_rope.ld();
    call.first_visible = first_visible.empty() ? nullptr : first_visible.data();
    call.out = out.data(), call.out_ld = out.ld();
    call.lse = static_cast<float*>(lse.data()), call.lse_ld = lse.ld();
    return call;
  }
  CpuAttentionGradients Gradients() {
    return {d_out.data(), d_out.ld(), d_q.data(), d_q.ld(), d_kv.data(), d_kv.ld(), d_k_rope.data(), d_k_rope.ld()};
  }
  reference::AttentionInput Reference() const {
    return {shape, static_cast<float>(scale()), q.Values(), kv.Values(), k_rope.Values(), first_visible};
  }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(shape.nope_dim + shape.rope_dim)); }

  AttentionShape shape;
  Tensor q, kv, k_rope, out, lse, d_out, d_q, d_kv, d_k_rope;
  DType dtype;
  std::vector<int32_t> first_visible;
};

std::vector<float> Poisoned(int64_t bytes) {
  return std::vector<float>(bytes / sizeof(float), std::numeric_limits<float>::quiet_NaN());
}

void RunBoth(Problem& p, Isa isa, int threads) {
  ThreadPool pool(threads, 0);
  std::vector<float> workspace = Poisoned(CpuAttentionWorkspaceBytes(p.shape, isa, threads, /*backward=*/false));
  CpuAttentionForward(pool, isa, p.Call(), workspace.data());
  workspace = Poisoned(CpuAttentionWorkspaceBytes(p.shape, isa, threads, /*backward=*/true));
  CpuAttentionBackward(pool, isa, p.Call(), p.Gradients(), workspace.data());
}

void ExpectClose(const std::vector<double>& got, const std::vector<double>& want, double tolerance, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  double squares = 0, worst = 0, error_squares = 0;
  for (double x : want) squares += x * x;
  const double rms = std::sqrt(squares / static_cast<double>(want.size())) + 1e-20;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(std::isfinite(got[i])) << what << " at " << i;
    error_squares += (got[i] - want[i]) * (got[i] - want[i]);
    worst = std::max(worst, std::abs(got[i] - want[i]) / std::max(rms, std::abs(want[i])));
  }
  EXPECT_LE(worst, tolerance) << what;
  EXPECT_LE(std::sqrt(error_squares / static_cast<double>(want.size())), tolerance / 8 * rms) << what;
}

void PrintTo(const Case& c, std::ostream* out) { *out << IsaName(c.isa) << " " << Name(c.dtype) << " S" << c.length; }

class AttentionTest : public testing::TestWithParam<Case> {};

TEST_P(AttentionTest, AgreesWithFloat64) {
  Problem p(GetParam());
  RunBoth(p, GetParam().isa, 1);
  const reference::AttentionInput input = p.Reference();
  const reference::AttentionOutput want = reference::Attention(input);
  const reference::AttentionGradients grads = reference::AttentionBackward(input, p.d_out.Values());
  const double tolerance = GetParam().tolerance;
  ExpectClose(p.out.Values(), want.out, tolerance, "out");
  ExpectClose(p.lse.Values(), want.lse, 1e-5, "lse");  // FP32 in both dtypes
  if (GetParam().length > 1) ExpectClose(p.d_q.Values(), grads.d_q, tolerance, "d_q");
  ExpectClose(p.d_kv.Values(), grads.d_kv, tolerance, "d_kv");
  if (GetParam().length > 1) ExpectClose(p.d_k_rope.Values(), grads.d_k_rope, tolerance, "d_k_rope");
}

TEST_P(AttentionTest, ThreadsDoNotChangeBits) {
  Problem one(GetParam()), two(GetParam()), five(GetParam());
  RunBoth(one, GetParam().isa, 1);
  RunBoth(two, GetParam().isa, 2);
  RunBoth(five, GetParam().isa, 5);
  for (const Problem* many : {&two, &five}) {
    EXPECT_EQ(one.out.bytes(), many->out.bytes());
    EXPECT_EQ(one.lse.bytes(), many->lse.bytes());
    EXPECT_EQ(one.d_q.bytes(), many->d_q.bytes());
    EXPECT_EQ(one.d_kv.bytes(), many->d_kv.bytes());
    EXPECT_EQ(one.d_k_rope.bytes(), many->d_k_rope.bytes());
  }
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (Isa isa : SupportedIsas()) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const double tolerance = dtype == DType::kF32 ? 2e-5 : 6e-2;
      for (const bool documents : {false, true}) {
        for (int64_t length : {1, 7, 65, 130}) {
          cases.push_back({isa, dtype, 3, length, 2, 32, 16, 32, documents, tolerance});
          cases.push_back({isa, dtype, 2, length, 3, 24, 8, 40, documents, tolerance});
        }
        cases.push_back({isa, dtype, 1, 65, 2, 128, 64, 128, documents, tolerance});
        cases.push_back({isa, dtype, 2, 33, 2, 5, 3, 7, documents, tolerance});     // odd widths
        cases.push_back({isa, dtype, 1, 400, 1, 16, 8, 16, documents, tolerance});  // several blocks of keys
        cases.push_back({isa, dtype, 70, 5, 2, 16, 8, 16, documents, tolerance});   // several waves of tasks
      }
    }
  }
  return cases;
}

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return std::string(IsaName(c.isa)) + "_" + Name(c.dtype) + "_B" + std::to_string(c.sequences) + "_S" +
         std::to_string(c.length) + "_H" + std::to_string(c.heads) + "_" + std::to_string(c.nope) + "_" +
         std::to_string(c.rope) + "_" + std::to_string(c.value) + (c.documents ? "_documents" : "");
}
INSTANTIATE_TEST_SUITE_P(Cases, AttentionTest, testing::ValuesIn(AllCases()), CaseName);

// The bits of a token's output do not depend on what follows it in the sequence, nor on the sequences beside it.
TEST(AttentionBitsTest, RowsDependOnTheirPastOnly) {
  for (Isa isa : SupportedIsas()) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      Problem whole({isa, dtype, 1, 450, 2, 24, 8, 40, false, 0});
      RunBoth(whole, isa, 1);
      for (int64_t length : {1, 13, 14, 15, 100, 385, 449}) {
        Problem prefix({isa, dtype, 1, length, 2, 24, 8, 40, false, 0});  // same streams: the same first tokens
        RunBoth(prefix, isa, 1);
        const std::vector<double> got = prefix.out.Values();
        std::vector<double> want = whole.out.Values();
        want.resize(got.size());
        EXPECT_EQ(got, want) << IsaName(isa) << " " << Name(dtype) << " length " << length;
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
