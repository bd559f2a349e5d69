// Tests of how the GPU's matrix products are configured: routes, shared memory, workspace and scales, without a GPU.
#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/gemm_config.h"

namespace shoestring::cuda {
namespace {

using testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;

int64_t RoundUp(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// The three products of a linear layer [out, in] over `tokens`, in the formats of the V3 report; contiguous tensors.
ProductDescription Fp8(GemmLayout layout, int64_t tokens, int64_t out, int64_t in, int64_t groups = 0) {
  ProductDescription d;
  d.layout = layout;
  d.groups = groups;
  d.a_type = d.b_type = DType::kE4M3;
  const bool by_tokens = layout == GemmLayout::kTN;
  d.a_tile = by_tokens ? Tile{128, 1} : Tile{1, 128};
  d.b_tile = by_tokens ? Tile{128, 1} : Tile{128, 128};
  d.c_type = by_tokens ? DType::kF32 : DType::kBF16;
  d.accumulate = by_tokens;
  if (layout == GemmLayout::kNT) d.m = tokens, d.n = out, d.k = in;
  if (layout == GemmLayout::kNN) d.m = tokens, d.n = in, d.k = out;
  if (layout == GemmLayout::kTN) d.m = out, d.n = in, d.k = tokens;
  d.a_stride = by_tokens ? d.m : d.k;
  d.b_stride = layout == GemmLayout::kNT ? d.k : d.n;
  d.c_stride = d.n;
  return d;
}
ProductDescription Bf16(ProductDescription d) {
  d.a_type = d.b_type = DType::kBF16;
  d.a_tile = d.b_tile = {};
  return d;
}

constexpr GemmLayout kLayouts[] = {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN};

// [out, in] of every dense linear layer of DeepSeek-V3: latents and shared RoPE key, up-projections, output, dense and
// shared feed-forward layers.
struct Linear {
  int64_t out, in;
};
constexpr Linear kDense[] = {{2112, 7168},  {576, 7168},   {1536, 7168},  {24576, 1536}, {32768, 512},
                             {7168, 16384}, {36864, 7168}, {7168, 18432}, {4096, 7168},  {7168, 2048}};
constexpr Linear kExpert[] = {{4096, 7168}, {7168, 2048}};

TEST(CudaConfigTest, DenseLayersOfV3GoToTheLibrary) {
  for (const Linear& w : kDense) {
    for (const int64_t tokens : {1024, 4096, 16384}) {
      for (const GemmLayout layout : kLayouts) {
        const ProductDescription d = Fp8(layout, tokens, w.out, w.in);
        SCOPED_TRACE(ToString(d));
        const ProductConfig c = Configure(d, {});
        EXPECT_EQ(c.route, ProductRoute::kLibrary) << c.refusals;
        EXPECT_EQ(c.without_library, ProductRoute::kTensorCores);
        EXPECT_EQ(c.refusals, "");
        EXPECT_EQ(c.transpose_a, layout == GemmLayout::kTN);
        EXPECT_EQ(c.transpose_b, layout != GemmLayout::kNT);
        EXPECT_FALSE(c.too_small);
        const ProductConfig plain = Configure(Bf16(d), {});
        EXPECT_EQ(plain.route, ProductRoute::kLibrary);
        EXPECT_EQ(plain.workspace.total_bytes(), 32 * kMiB);
      }
    }
  }
}

TEST(CudaConfigTest, WorkspaceHoldsWhatIsCopied) {
  const auto bytes = [](GemmLayout layout, int64_t tokens) {
    return Configure(Fp8(layout, tokens, 2112, 7168), {}).workspace;
  };
  // Forward: scales only. [7168 / 128][4096] a row, [17][56] a block.
  EXPECT_EQ(bytes(GemmLayout::kNT, 4096).a_codes_bytes, 0);
  EXPECT_EQ(bytes(GemmLayout::kNT, 4096).b_codes_bytes, 0);
  EXPECT_EQ(bytes(GemmLayout::kNT, 4096).a_scales_bytes, 56 * 4096 * 4);
  EXPECT_EQ(bytes(GemmLayout::kNT, 4096).b_scales_bytes, 17 * 56 * 4);
  // Rows of scales are padded to four.
  EXPECT_EQ(bytes(GemmLayout::kNT, 4097).a_scales_bytes, 0) << "m must be a multiple of 16 for the library";
  // Input gradient: the weight's codes, 2112 rounded up to 17 blocks.
  EXPECT_EQ(bytes(GemmLayout::kNN, 4096).b_codes_bytes, 7168 * 17 * 128);
  EXPECT_EQ(bytes(GemmLayout::kNN, 4096).b_scales_bytes, 56 * 20 * 4);
  // Weight gradient: both, tokens rounded up to whole blocks.
  EXPECT_EQ(bytes(GemmLayout::kTN, 4000).a_codes_bytes, 2112 * 4096);
  EXPECT_EQ(bytes(GemmLayout::kTN, 4000).b_codes_bytes, 7168 * 4096);
  EXPECT_EQ(bytes(GemmLayout::kTN, 4000).a_scales_bytes, 32 * 2112 * 4);
  const ProductWorkspace w = bytes(GemmLayout::kTN, 4000);
  for (const int64_t offset :
       {w.b_codes_offset(), w.a_scales_offset(), w.b_scales_offset(), w.library_offset(), w.total_bytes()}) {
    EXPECT_EQ(offset % 256, 0);
  }
  EXPECT_LE(w.a_codes_bytes, w.b_codes_offset());
  EXPECT_LE(w.b_codes_offset() + w.b_codes_bytes, w.a_scales_offset());
  EXPECT_LE(w.a_scales_offset() + w.a_scales_bytes, w.b_scales_offset());
  EXPECT_LE(w.b_scales_offset() + w.b_scales_bytes, w.library_offset());
  EXPECT_EQ(w.library_offset() + 32 * kMiB, w.total_bytes());
}

TEST(CudaConfigTest, ExpertsOfV3GoToTheTensorCores) {
  for (const Linear& w : kExpert) {
    for (const int64_t each : {128, 1024, 8192}) {
      for (const GemmLayout layout : kLayouts) {
        const int64_t groups = 8;
        const ProductDescription d = Fp8(layout, each * groups, w.out, w.in, groups);
        SCOPED_TRACE(ToString(d));
        const ProductConfig c = Configure(d, {});
        EXPECT_EQ(c.route, ProductRoute::kTensorCores) << c.refusals;
        EXPECT_GE(c.stages.stages, 4);
        EXPECT_LE(c.stages.shared_bytes(), kMaxSharedBytes);
        EXPECT_GT(c.grid, 0);
        EXPECT_LE(c.grid, 132);
        const int64_t copied = layout == GemmLayout::kNT   ? 0
                               : layout == GemmLayout::kNN ? groups * d.n * RoundUp(d.k, 128)
                                                           : RoundUp(d.m * c.k_padded, 256) + d.n * c.k_padded;
        EXPECT_EQ(c.workspace.total_bytes(), copied);
        EXPECT_EQ(Configure(Bf16(d), {}).route, ProductRoute::kTensorCores);
        EXPECT_EQ(Configure(Bf16(d), {}).workspace.total_bytes(), 0);
      }
    }
  }
}

// A product that the workspace cannot hold is cut until it can; the parts make up the whole.
TEST(CudaConfigTest, LargeProductsAreCut) {
  const ProductOptions options = {.workspace_bytes = 100 * kMiB};
  for (const GemmLayout layout : {GemmLayout::kNN, GemmLayout::kTN}) {
    std::vector<ProductDescription> open = {Fp8(layout, 65536, 4096, 7168, 8)};
    const int64_t whole = open[0].m * open[0].n;
    int64_t done = 0;
    int parts = 0;
    while (!open.empty()) {
      const ProductDescription d = open.back();
      open.pop_back();
      const ProductConfig c = Configure(d, options);
      ASSERT_FALSE(c.too_small);
      if (c.split_n > 0 || c.split_m > 0) {
        ASSERT_EQ((c.split_n + c.split_m) % 128, 0);
        ProductDescription one = d, other = d;
        if (c.split_n > 0) one.n = c.split_n, other.n = d.n - c.split_n;
        if (c.split_m > 0) one.m = c.split_m, other.m = d.m - c.split_m;
        open.push_back(one);
        open.push_back(other);
        continue;
      }
      EXPECT_LE(c.workspace.total_bytes(), options.workspace_bytes);
      done += d.m * d.n;
      ++parts;
    }
    EXPECT_EQ(done, whole);
    EXPECT_GT(parts, 1);
    EXPECT_LE(parts, 64);
  }
  EXPECT_TRUE(Configure(Fp8(GemmLayout::kTN, int64_t{1} << 22, 128, 128), options).too_small);
}

TEST(CudaConfigTest, RefusalsSayWhy) {
  const ProductDescription good = Fp8(GemmLayout::kNT, 64, 256, 256);
  EXPECT_EQ(LibraryRefusal(good), "");
  EXPECT_EQ(TensorCoreRefusal(good), "");
  const auto expect = [&](auto change, const char* library, const char* cores) {
    ProductDescription d = good;
    change(d);
    SCOPED_TRACE(ToString(d));
    EXPECT_THAT(LibraryRefusal(d), HasSubstr(library));
    EXPECT_THAT(TensorCoreRefusal(d), HasSubstr(cores));
    const ProductConfig c = Configure(d, {});
    if (*library != 0 && d.groups == 0) {
      EXPECT_THAT(c.refusals, HasSubstr(library));
    }
    if (*library != 0 && *cores != 0) {
      EXPECT_EQ(c.route, ProductRoute::kPlain);
      EXPECT_THAT(c.refusals, HasSubstr(cores));
    } else if (*library != 0) {
      EXPECT_EQ(c.route, ProductRoute::kTensorCores);
    }
  };
  expect([](auto& d) { d.groups = 4; }, "counts on the host", "");
  expect([](auto& d) { d.how.interval = 64; }, "interval 64", "interval 64");
  expect([](auto& d) { d.a_tile = {1, 64}; }, "tiles 1x64 and 128x128", "tiles 1x64 and 128x128");
  expect([](auto& d) { d.b_tile = {64, 64}; }, "tiles 1x128 and 64x64", "are not 1x128 and 128x128");
  expect([](auto& d) { d.n = 257; }, "n 257 is not a multiple of 16", "");
  expect([](auto& d) { d.m = 63; }, "m 63 is not a multiple of 16", "");
  expect([](auto& d) { d.k = 250; }, "k 250 is not a multiple of 16", "");
  expect([](auto& d) { d.a_stride = 259; }, "a's rows", "a's rows");
  expect([](auto& d) { d.b_stride = 259; }, "b's rows", "b's rows");
  expect([](auto& d) { d.c_stride = 257; }, "c's rows", "");
  expect([](auto& d) { d.a_alignment_bytes = 8; }, "a does not begin", "a does not begin");
  expect([](auto& d) { d.b_alignment_bytes = 8; }, "b does not begin", "b does not begin");
  expect([](auto& d) { d.a_type = DType::kE5M2; }, "", "");
  expect([](auto& d) { d.a_type = d.b_type = DType::kE5M2; }, "e5m2 x e5m2", "b is e5m2");
  ProductDescription f32 = Bf16(good);
  f32.a_type = f32.b_type = f32.c_type = DType::kF32;
  EXPECT_EQ(Configure(f32, {}).route, ProductRoute::kLibrary);
  f32.groups = 2;
  EXPECT_EQ(Configure(f32, {}).route, ProductRoute::kPlain);
  EXPECT_THAT(Configure(f32, {}).refusals, HasSubstr("TF32"));
  // By tokens both operands are copied, so they may lie as they like.
  ProductDescription crooked = Fp8(GemmLayout::kTN, 61, 250, 130, 3);
  crooked.a_stride = 253, crooked.b_stride = 131, crooked.a_alignment_bytes = crooked.b_alignment_bytes = 1;
  EXPECT_EQ(Configure(crooked, {}).route, ProductRoute::kTensorCores);
}

TEST(CudaConfigTest, EmptyProducts) {
  for (const GemmLayout layout : kLayouts) {
    ProductDescription d = Fp8(layout, 64, 256, 256);
    d.accumulate = false;
    ProductDescription none = d;
    none.m = 0;
    EXPECT_EQ(Configure(none, {}).route, ProductRoute::kNothing);
    d.k = 0;
    EXPECT_EQ(Configure(d, {}).route, ProductRoute::kZero);
    d.accumulate = true;
    EXPECT_EQ(Configure(d, {}).route, ProductRoute::kNothing);
  }
}

TEST(CudaConfigTest, DescriptionsReadViews) {
  std::vector<std::byte> memory(4096);
  std::byte* const base = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256) % 256;
  const View codes(base + 16, DType::kE4M3, 6, 32, 48);
  const View scales(base, DType::kF32, 6, 1, 1);
  const View weights(base + 64, DType::kE4M3, 3 * 16, 32, 32);
  const View out(base + 4, DType::kBF16, 6, 16, 20);
  const Segments segments = {ConstView(base, DType::kI32, 1, 4), 3, 6};
  const ProductDescription d = Describe(GemmLayout::kNT, segments, Operand(codes, scales, {1, 128}),
                                        Operand(weights, scales, {128, 128}), out, false, {});
  EXPECT_EQ(ToString(d), "NT m 6 n 16 k 32 groups 3 e4m3 x e4m3 -> bf16");
  EXPECT_EQ(std::tie(d.a_stride, d.b_stride, d.c_stride), std::make_tuple(48, 32, 20));
  EXPECT_EQ(std::tie(d.a_alignment_bytes, d.b_alignment_bytes, d.c_alignment_bytes), std::make_tuple(16, 64, 4));
}

// Transposed segments begin at whole blocks, in order, and never touch.
TEST(CudaConfigTest, PaddedSegmentsDoNotOverlap) {
  const Rng rng(5, RngPurpose::kTest, 0);
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t groups = 1 + static_cast<int64_t>(rng.Below(trial * 100, 12));
    int64_t first = 0, end = 0;
    for (int64_t g = 0; g < groups; ++g) {
      const auto count = static_cast<int64_t>(rng.Below(trial * 100 + g + 1, 400));
      const int64_t begin = SegmentScaleRow({128, 1}, first, g) * 128;
      EXPECT_GE(begin, end);
      end = begin + RoundUp(count, 128);
      first += count;
    }
    EXPECT_LE(end, PaddedTokens(first, groups));
  }
}

// --- scales ---------------------------------------------------------------------------------------------------------

// The scale of stored element (r, c) by the words of kernels/tensor.h: a stack of matrices with `each` rows.
int64_t MenuIndex(const Tile& tile, int64_t each, int64_t stride, int64_t r, int64_t c) {
  return (r / each * ScaleRows(tile, each) + r % each / tile.rows) * stride + c / tile.cols;
}

TEST(CudaConfigTest, PackedScalesLieWhereTheLibraryLooks) {
  for (const auto& [tokens, out, in] : {std::tuple<int64_t, int64_t, int64_t>{48, 400, 272}, {130, 128, 2112}}) {
    for (const GemmLayout layout : kLayouts) {
      const ProductDescription d = Fp8(layout, tokens, out, in);
      SCOPED_TRACE(ToString(d));
      const bool by_tokens = d.by_tokens();
      const int64_t a_rows = by_tokens ? d.k : d.m, a_cols = by_tokens ? d.m : d.k;
      const int64_t b_rows = layout == GemmLayout::kNT ? d.n : d.k, b_cols = layout == GemmLayout::kNT ? d.k : d.n;
      const int64_t a_stride = ScaleColumns(d.a_tile, a_cols) + 3, b_stride = ScaleColumns(d.b_tile, b_cols) + 1;
      // What LaunchPackScales does, with an index for each scale.
      const auto pack = [](const ScalePacking& p) {
        std::vector<int64_t> to(p.to.elements(), -1);
        for (int64_t outer = 0; outer < p.to.outer; ++outer) {
          for (int64_t inner = 0; inner < p.to.inner; ++inner) {
            to[outer * p.to.stride + inner] = outer * p.outer_stride + inner * p.inner_stride;
          }
        }
        return to;
      };
      const ScalePacking a = PackingOfA(d, a_stride), b = PackingOfB(d, b_stride);
      const std::vector<int64_t> a_packed = pack(a), b_packed = pack(b);
      EXPECT_EQ(a.to.stride % 4, 0);
      EXPECT_EQ(b.to.stride % 4, 0);
      for (int64_t k = 0; k < d.k; ++k) {
        for (int64_t i = 0; i < d.m; ++i) {
          const int64_t want = MenuIndex(d.a_tile, a_rows, a_stride, by_tokens ? k : i, by_tokens ? i : k);
          ASSERT_EQ(a_packed[VectorScaleIndex(a.to, i, k)], want);
        }
        for (int64_t j = 0; j < d.n; ++j) {
          const bool nt = layout == GemmLayout::kNT;
          const int64_t want = MenuIndex(d.b_tile, b_rows, b_stride, nt ? j : k, nt ? k : j);
          const int64_t at = by_tokens ? VectorScaleIndex(b.to, j, k) : BlockScaleIndex(b.to, j, k);
          ASSERT_EQ(b_packed[at], want);
        }
      }
    }
  }
}

TEST(CudaConfigTest, GroupedKernelsFindTheirScales) {
  const std::vector<int64_t> offsets = {0, 5, 5, 300, 431};
  const int64_t groups = static_cast<int64_t>(offsets.size()) - 1, out = 400, in = 272;
  for (const GemmLayout layout : kLayouts) {
    const ProductDescription d = Fp8(layout, offsets.back(), out, in, groups);
    SCOPED_TRACE(ToString(d));
    const int64_t a_stride = 577, b_stride = 411;  // as if scales were parts of wider matrices
    const ScaleStrides a = StridesOfA(d, a_stride), b = StridesOfB(d, b_stride);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = offsets[g], count = offsets[g + 1] - first;
      if (d.by_tokens()) {
        for (int64_t t = 0; t < count; ++t) {
          const int64_t row = SegmentScaleRow(d.a_tile, first, g) + t / 128;
          const int64_t segment = first / 128 + g;  // as SpanOf counts
          for (int64_t x = 0; x < in; x += 7) {
            ASSERT_EQ(segment * a.block + x * a.outer + t / 128 * a.block, row * a_stride + x);
            ASSERT_EQ(segment * b.block + x * b.outer + t / 128 * b.block, row * b_stride + x);
          }
        }
        continue;
      }
      const int64_t b_rows = layout == GemmLayout::kNT ? d.n : d.k;
      for (int64_t k = 0; k < d.k; ++k) {
        for (int64_t t = first; t < first + count; ++t) {
          ASSERT_EQ(t * a.outer + k / 128 * a.block, MenuIndex(d.a_tile, d.m, a_stride, t, k));
        }
        for (int64_t j = 0; j < d.n; ++j) {
          const bool nt = layout == GemmLayout::kNT;
          const int64_t want = MenuIndex(d.b_tile, b_rows, b_stride, g * b_rows + (nt ? j : k), nt ? k : j);
          ASSERT_EQ(g * b.group + j / 128 * b.outer + k / 128 * b.block, want);
        }
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::cuda
