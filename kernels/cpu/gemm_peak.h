// The best rate of our matrix products on this machine now: what a speed report divides by.
#pragma once

#include "base/clock.h"
#include "kernels/cpu/gemm.h"

namespace shoestring {

struct GemmPeak {
  double f32_gflops = 0;
  double bf16_gflops = 0;  // bf16 in, FP32 out
};

// Runs a 1024 x 512 x 512 product with all threads of the pool: the best of `rounds`. Takes about 3 ms a round and
// dtype on one core, and 4 MB while it runs; call it before or after training, not inside a step.
GemmPeak MeasureGemmPeak(CpuGemm& gemm, int rounds = 60, Clock& clock = RealClock());

// The rate in GFLOP/s that the same product holds for `seconds`: what a machine can do for as long as a step takes,
// where the best of many short rounds is what it can do for a moment.
double SustainedGemmRate(CpuGemm& gemm, DType dtype, double seconds, Clock& clock = RealClock());

}  // namespace shoestring
