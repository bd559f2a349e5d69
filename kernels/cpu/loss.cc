// Cross-entropy and the sum of its rows on the CPU.
#include "kernels/cpu/cpu_operations.h"

namespace shoestring {

void CpuCrossEntropy(const CpuContext& cpu, const CrossEntropyArgs& args) {
  const int32_t* targets = args.targets.as<int32_t>();
  for (int64_t t = 0; t < args.targets.cols; ++t) {
    CHECK_GE(targets[t], -1);
    CHECK_LT(targets[t], args.logits.cols);
  }
  const CrossEntropyLoop loop = {.logits = RowsOf(args.logits),
                                 .targets = targets,
                                 .grad_scale = args.grad_scale,
                                 .loss = args.loss.as<float>(),
                                 .d_logits = RowsOf(args.d_logits),
                                 .cols = args.logits.cols};
  ForRowRanges(cpu, args.logits.rows, args.logits.cols,
               [&](int64_t begin, int64_t end) { cpu.ops.cross_entropy(loop, begin, end); });
}

void CpuSumRows(ConstView x, View sum) {
  constexpr int64_t kBlock = int64_t{1} << 16;  // part of the numerics: kernels/operations.h
  const float* values = x.as<float>();
  double total = 0;
  for (int64_t block = 0; block < x.cols; block += kBlock) {
    double partial = 0;
    for (int64_t i = block; i < std::min(x.cols, block + kBlock); ++i) partial += static_cast<double>(values[i]);
    total += partial;
  }
  *sum.as<double>() = total;
}

}  // namespace shoestring
