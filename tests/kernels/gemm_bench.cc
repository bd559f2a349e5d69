// A benchmark, not a test: rates of the CPU matrix products and attention at the shapes of small models, beside the
// measured peak.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "base/clock.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_peak.h"
#include "kernels/e4m3.h"

namespace shoestring {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 22;

struct Buffers {
  std::vector<float> a, b, c;
  std::vector<float> scales = std::vector<float>(kMaxElements, 1.0f);
};

Buffers MakeBuffers(DType dtype) {
  Buffers buffers = {std::vector<float>(kMaxElements), std::vector<float>(kMaxElements),
                     std::vector<float>(kMaxElements)};
  for (std::vector<float>* v : {&buffers.a, &buffers.b}) {
    for (int64_t i = 0; i < kMaxElements; ++i) {
      const float x = static_cast<float>(i % 1009) / 1009.0f - 0.5f;
      if (dtype == DType::kF32) {
        (*v)[i] = x;
      } else if (dtype == DType::kE4M3) {
        for (int j = 0; j < 4; ++j) reinterpret_cast<uint8_t*>(v->data())[4 * i + j] = EncodeE4M3(x);
      } else {
        reinterpret_cast<BF16*>(v->data())[2 * i] = reinterpret_cast<BF16*>(v->data())[2 * i + 1] = BF16(x);
      }
    }
  }
  return buffers;
}

// Best rate in GFLOP/s over about 0.15 s.
template <typename F>
double Rate(double flops, F run) {
  double best = 0;
  const int64_t end = RealClock().MonotonicNanos() + 150'000'000;
  while (RealClock().MonotonicNanos() < end) {
    const int64_t start = RealClock().MonotonicNanos();
    run();
    best = std::max(best, flops / static_cast<double>(RealClock().MonotonicNanos() - start));
  }
  return best;
}

struct Shape {
  int64_t m, n, k;
};

// The V3 report's tiles: tokens 1 x 128 or, where they are contracted, 128 x 1; weights 128 x 128.
Fp8Call Fp8Of(const Buffers& x, const GemmCall& call) {
  const bool tn = call.layout == GemmLayout::kTN;
  const Tile tokens = tn ? Tile{128, 1} : Tile{1, 128}, others = tn ? tokens : Tile{128, 128};
  return {DType::kE4M3,
          {x.scales.data(), ScaleColumns(tokens, call.lda), tokens},
          {x.scales.data(), ScaleColumns(others, call.ldb), others},
          {}};
}

double DenseRate(CpuGemm& gemm, const Buffers& x, Buffers& out, GemmLayout layout, DType in, const Shape& s,
                 bool hopper = false) {
  const bool tn = layout == GemmLayout::kTN;
  const DType c = tn ? DType::kF32 : in == DType::kE4M3 ? DType::kBF16 : in;
  GemmCall call = {
      layout, s.m,          s.n, s.k, in, x.a.data(), tn ? s.m : s.k, x.b.data(), layout == GemmLayout::kNT ? s.k : s.n,
      c,      out.c.data(), s.n, tn};
  if (in == DType::kE4M3) call.fp8 = Fp8Of(x, call);
  call.fp8.how.hopper = hopper;
  return Rate(2.0 * s.m * s.n * s.k, [&] { gemm.Run(call); });
}

// `groups` experts of s.m rows each (a third more or less), weight [s.n, s.k].
double GroupedRate(CpuGemm& gemm, const Buffers& x, Buffers& out, GemmLayout layout, DType in, const Shape& s,
                   int groups) {
  std::vector<int32_t> offsets = {0};
  for (int g = 0; g < groups; ++g) offsets.push_back(offsets.back() + static_cast<int32_t>(s.m * (2 + g % 3) / 3));
  const bool tn = layout == GemmLayout::kTN;
  const int64_t a = layout == GemmLayout::kNT ? s.k : s.n, c = layout == GemmLayout::kNT ? s.n : s.k;
  GroupedGemmCall call;
  call.each = {layout,       s.n, c,          a,   in,
               x.a.data(),   a,   x.b.data(), s.k, tn ? DType::kF32 : in == DType::kE4M3 ? DType::kBF16 : in,
               out.c.data(), c,   tn};
  call.groups = groups;
  call.offsets = offsets.data();
  call.stride = s.n * s.k;
  if (in == DType::kE4M3) {
    call.each.fp8 = Fp8Of(x, call.each);
    call.scale_rows = ScaleRows({128, 128}, s.n);
  }
  return Rate(2.0 * offsets.back() * s.n * s.k, [&] { gemm.RunGrouped(call); });
}

void PrintDtype(CpuGemm& gemm, DType in, double peak) {
  Buffers buffers = MakeBuffers(in);
  const Shape dense[] = {{2048, 2048, 1024}, {2048, 1024, 256}, {4096, 512, 256}, {4096, 256, 512},
                         {2048, 192, 256},   {2048, 256, 192},  {4096, 512, 256}, {4096, 256, 512},
                         {256, 192, 256},    {192, 256, 2048},  {64, 1024, 512},  {512, 512, 512}};
  const GemmLayout layouts[] = {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN};
  for (const Shape& s : dense) {
    std::printf("  %4s %5ld x %4ld x %4ld      ", Name(in), s.m, s.n, s.k);
    for (GemmLayout layout : layouts) {
      const double rate = DenseRate(gemm, buffers, buffers, layout, in, s);
      std::printf("  %6.1f (%3.0f%%)", rate, 100 * rate / peak);
    }
    std::printf("\n");
  }
  for (const Shape& s :
       {Shape{64, 128, 256}, Shape{128, 64, 192}, Shape{256, 192, 64}, Shape{512, 256, 256}, Shape{512, 256, 128}}) {
    std::printf("  %4s %5ld x %4ld x %4ld  32 x", Name(in), s.m, s.n, s.k);
    for (GemmLayout layout : layouts) {
      const double rate = GroupedRate(gemm, buffers, buffers, layout, in, s, 32);
      std::printf("  %6.1f (%3.0f%%)", rate, 100 * rate / peak);
    }
    std::printf("\n");
  }
}

// Forward and backward of attention; multiply-adds of the causal half only, so masked work counts as lost.
void PrintAttention(ThreadPool& pool, Isa isa, DType dtype, double peak, const AttentionShape& s) {
  Buffers x = MakeBuffers(dtype), y = MakeBuffers(dtype);
  std::vector<float> lse(s.tokens * s.heads);
  const int64_t dk = s.nope_dim + s.rope_dim;
  CpuAttentionCall call = {s,
                           dtype,
                           0.15f,
                           x.a.data(),
                           s.heads * dk,
                           x.b.data(),
                           s.heads * (s.nope_dim + s.value_dim),
                           x.c.data(),
                           s.rope_dim,
                           nullptr,
                           y.a.data(),
                           s.heads * s.value_dim,
                           lse.data(),
                           s.heads};
  const CpuAttentionGradients grads = {
      x.a.data(), call.out_ld, y.b.data(), call.q_ld, y.c.data(), call.kv_ld, x.c.data() + kMaxElements / 2,
      s.rope_dim};
  const int64_t bytes = std::max(CpuAttentionWorkspaceBytes(s, isa, pool.threads(), false),
                                 CpuAttentionWorkspaceBytes(s, isa, pool.threads(), true));
  std::vector<float> workspace(bytes / sizeof(float));
  const double pairs = static_cast<double>(s.tokens) * s.heads * s.sequence_length / 2;
  const double forward =
      Rate(2 * pairs * (dk + s.value_dim), [&] { CpuAttentionForward(pool, isa, call, workspace.data()); });
  const double backward = Rate(2 * pairs * (3 * dk + 2 * s.value_dim),
                               [&] { CpuAttentionBackward(pool, isa, call, grads, workspace.data()); });
  std::printf("  %4s attention S %ld H %ld %ld/%ld/%ld: forward %6.1f (%3.0f%%)  backward %6.1f (%3.0f%%)\n",
              Name(dtype), s.sequence_length, s.heads, s.nope_dim, s.rope_dim, s.value_dim, forward,
              100 * forward / peak, backward, 100 * backward / peak);
}

// One thread repeating one full tile on operands that never leave the first-level cache: what the loop itself can do.
double TileRate(const GemmKernels& kernels) {
  std::vector<float> a(16 * kGemmRowStride), b(128 * kernels.columns()), c(kernels.rows * kernels.columns());
  TileOut out = {};
  out.f32 = c.data();
  out.stride = out.columns = kernels.columns();
  constexpr int kRepeats = 1000;
  const double flops = 2.0 * kRepeats * 128 * kernels.k_step * kernels.rows * kernels.columns();
  return Rate(flops, [&] {
    for (int i = 0; i < kRepeats; ++i) {
      kernels.micro->at[kTileRows][kernels.vectors][kernels.rows](128, a.data(), b.data(), out);
    }
  });
}

// `only`: the name of one level, or empty.
void Main(const std::string& only) {
  for (Isa isa : SupportedIsas()) {
    if (only.empty() ? isa == Isa::kPortable : only != IsaName(isa)) continue;
    const LevelKernels& level = KernelsOf(isa);
    std::printf("%s, 1 thread: one tile repeated: f32 %.1f, bf16 %.1f GFLOP/s\n", std::string(IsaName(isa)).c_str(),
                TileRate(level.f32), TileRate(level.bf16));
    for (int threads : {1, 2}) {
      ThreadPool pool(threads);
      CpuGemm gemm(&pool, isa);
      const GemmPeak peak = MeasureGemmPeak(gemm);
      std::printf("%s, %d thread(s): GFLOP/s of NT, NN, TN (share of our large product: f32 %.1f, bf16 %.1f)\n",
                  std::string(IsaName(isa)).c_str(), threads, peak.f32_gflops, peak.bf16_gflops);
      PrintDtype(gemm, DType::kF32, peak.f32_gflops);
      PrintDtype(gemm, DType::kBF16, peak.bf16_gflops);
      PrintDtype(gemm, DType::kE4M3, peak.bf16_gflops);
      const Buffers fp8 = MakeBuffers(DType::kE4M3);
      Buffers out = fp8;
      std::printf("  e4m3 with Hopper's short accumulator, 512 x 512 x 512: %.1f\n",
                  DenseRate(gemm, fp8, out, GemmLayout::kNT, DType::kE4M3, {512, 512, 512}, true));
      for (const AttentionShape& shape :
           {AttentionShape{2048, 256, 6, 32, 16, 32}, AttentionShape{2048, 1024, 4, 64, 32, 64}}) {
        PrintAttention(pool, isa, DType::kF32, peak.f32_gflops, shape);
        PrintAttention(pool, isa, DType::kBF16, peak.bf16_gflops, shape);
      }
    }
  }
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) { shoestring::Main(argc > 1 ? argv[1] : ""); }
