// Measures the rate of a large matrix product.
#include "kernels/cpu/gemm_peak.h"

#include <algorithm>
#include <vector>

namespace shoestring {
namespace {

// Short enough (about 3 ms on one core) that some rounds pass undisturbed on a shared machine.
constexpr int64_t kM = 1024, kN = 512, kK = 512;

double BestRate(CpuGemm& gemm, DType dtype, int rounds, Clock& clock) {
  // Small numbers whose sums stay finite; the rate does not depend on the values.
  const std::vector<float> f32(dtype == DType::kF32 ? kM * kK : 0, 0.5f);
  const std::vector<BF16> bf16(dtype == DType::kBF16 ? kM * kK : 0, BF16(0.5f));
  const void* in = dtype == DType::kF32 ? static_cast<const void*>(f32.data()) : bf16.data();
  std::vector<float> c(kM * kN);
  const GemmCall call = {GemmLayout::kNT, kM, kN, kK, dtype, in, kK, in, kK, DType::kF32, c.data(), kN, false};
  double best = 0;
  for (int round = 0; round <= rounds; ++round) {  // the first one warms up
    const int64_t start = clock.MonotonicNanos();
    gemm.Run(call);
    const double nanos = static_cast<double>(std::max<int64_t>(1, clock.MonotonicNanos() - start));
    if (round > 0) best = std::max(best, 2.0 * kM * kN * kK / nanos);
  }
  return best;
}

}  // namespace

GemmPeak MeasureGemmPeak(CpuGemm& gemm, int rounds, Clock& clock) {
  return {BestRate(gemm, DType::kF32, rounds, clock), BestRate(gemm, DType::kBF16, rounds, clock)};
}

}  // namespace shoestring
