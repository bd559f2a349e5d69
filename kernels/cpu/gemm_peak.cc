// Measures the rate of a large matrix product.
#include "kernels/cpu/gemm_peak.h"

#include <algorithm>
#include <vector>

namespace shoestring {
namespace {

// Short enough (about 3 ms on one core) that some rounds pass undisturbed on a shared machine.
constexpr int64_t kM = 1024, kN = 512, kK = 512;

// The product whose rate is measured, with its memory.
class Product {
 public:
  explicit Product(DType dtype)
      // Small numbers whose sums stay finite; the rate does not depend on the values.
      : f32_(dtype == DType::kF32 ? kM * kK : 0, 0.5f),
        bf16_(dtype == DType::kBF16 ? kM * kK : 0, BF16(0.5f)),
        c_(kM * kN) {
    const void* in = dtype == DType::kF32 ? static_cast<const void*>(f32_.data()) : bf16_.data();
    call_ = {GemmLayout::kNT, kM, kN, kK, dtype, in, kK, in, kK, DType::kF32, c_.data(), kN, false};
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  static constexpr double kFlops = 2.0 * kM * kN * kK;
  // Nanoseconds that it took; at least 1.
  double Run(CpuGemm& gemm, Clock& clock) {
    const int64_t start = clock.MonotonicNanos();
    gemm.Run(call_);
    return static_cast<double>(std::max<int64_t>(1, clock.MonotonicNanos() - start));
  }

 private:
  const std::vector<float> f32_;
  const std::vector<BF16> bf16_;
  std::vector<float> c_;
  GemmCall call_;
};

double BestRate(CpuGemm& gemm, DType dtype, int rounds, Clock& clock) {
  Product product(dtype);
  product.Run(gemm, clock);  // warms up
  double best = 0;
  for (int round = 0; round < rounds; ++round) best = std::max(best, Product::kFlops / product.Run(gemm, clock));
  return best;
}

}  // namespace

GemmPeak MeasureGemmPeak(CpuGemm& gemm, int rounds, Clock& clock) {
  return {BestRate(gemm, DType::kF32, rounds, clock), BestRate(gemm, DType::kBF16, rounds, clock)};
}

double SustainedGemmRate(CpuGemm& gemm, DType dtype, double seconds, Clock& clock) {
  Product product(dtype);
  product.Run(gemm, clock);  // warms up
  double nanos = 0, flops = 0;
  while (nanos < 1e9 * seconds) {
    nanos += product.Run(gemm, clock);
    flops += Product::kFlops;
  }
  return flops / nanos;
}

}  // namespace shoestring
