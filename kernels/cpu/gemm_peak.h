// The best rate of our matrix products on this machine now: what a speed report divides by.
#pragma once

#include "kernels/cpu/gemm.h"

namespace shoestring {

struct GemmPeak {
  double f32_gflops = 0;
  double bf16_gflops = 0;  // bf16 in, FP32 out
};

// Runs a 2048 x 2048 x 1024 product with all threads of the pool: the best of `rounds`. Takes about 0.1 s a round and
// dtype, and 32 MB while it runs; call it before or after training, not inside a step.
GemmPeak MeasureGemmPeak(CpuGemm& gemm, int rounds = 20);

}  // namespace shoestring
