// A benchmark, not a test: rates of the CPU matrix products at the shapes of small models, beside the measured peak.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_peak.h"

namespace shoestring {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 22;

struct Buffers {
  std::vector<float> a, b, c;
};

Buffers MakeBuffers(DType dtype) {
  Buffers buffers = {std::vector<float>(kMaxElements), std::vector<float>(kMaxElements),
                     std::vector<float>(kMaxElements)};
  for (std::vector<float>* v : {&buffers.a, &buffers.b}) {
    for (int64_t i = 0; i < kMaxElements; ++i) {
      const float x = static_cast<float>(i % 1009) / 1009.0f - 0.5f;
      if (dtype == DType::kF32) {
        (*v)[i] = x;
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

double DenseRate(CpuGemm& gemm, const Buffers& x, Buffers& out, GemmLayout layout, DType in, const Shape& s) {
  const bool tn = layout == GemmLayout::kTN;
  const DType c = tn ? DType::kF32 : in;
  const GemmCall call = {
      layout, s.m,          s.n, s.k, in, x.a.data(), tn ? s.m : s.k, x.b.data(), layout == GemmLayout::kNT ? s.k : s.n,
      c,      out.c.data(), s.n, tn};
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
  call.each = {layout, s.n, c, a, in, x.a.data(), a, x.b.data(), s.k, tn ? DType::kF32 : in, out.c.data(), c, tn};
  call.groups = groups;
  call.offsets = offsets.data();
  call.stride = s.n * s.k;
  return Rate(2.0 * offsets.back() * s.n * s.k, [&] { gemm.RunGrouped(call); });
}

void PrintDtype(CpuGemm& gemm, DType in, double peak) {
  Buffers buffers = MakeBuffers(in);
  const Shape dense[] = {{2048, 2048, 1024}, {2048, 1024, 256}, {2048, 192, 256}, {2048, 256, 192},
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
  for (const Shape& s : {Shape{64, 128, 256}, Shape{128, 64, 192}, Shape{256, 192, 64}}) {
    std::printf("  %4s %5ld x %4ld x %4ld  32 x", Name(in), s.m, s.n, s.k);
    for (GemmLayout layout : layouts) {
      const double rate = GroupedRate(gemm, buffers, buffers, layout, in, s, 32);
      std::printf("  %6.1f (%3.0f%%)", rate, 100 * rate / peak);
    }
    std::printf("\n");
  }
}

void Main() {
  for (Isa isa : SupportedIsas()) {
    if (isa == Isa::kPortable) continue;
    for (int threads : {1, 2}) {
      ThreadPool pool(threads);
      CpuGemm gemm(&pool, isa);
      const GemmPeak peak = MeasureGemmPeak(gemm);
      std::printf("%s, %d thread(s): GFLOP/s of NT, NN, TN (share of our large product: f32 %.1f, bf16 %.1f)\n",
                  std::string(IsaName(isa)).c_str(), threads, peak.f32_gflops, peak.bf16_gflops);
      PrintDtype(gemm, DType::kF32, peak.f32_gflops);
      PrintDtype(gemm, DType::kBF16, peak.bf16_gflops);
    }
  }
}

}  // namespace
}  // namespace shoestring

int main() { shoestring::Main(); }
