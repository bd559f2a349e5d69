// AdamW, the running mean of weights and sums of squares on the CPU.
#include <cmath>

#include "kernels/cpu/cpu_operations.h"

namespace shoestring {

// A block is cut into pieces that are added in order: so a tensor of one block can use all threads too.
void CpuSquaredNorm(const CpuContext& cpu, ConstView x, View block_sums) {
  constexpr int64_t kPiece = int64_t{1} << 16;
  constexpr int64_t kPiecesPerBlock = kNormBlockElements / kPiece;
  constexpr int64_t kBlocksAtOnce = kCpuPartialSums / kPiecesPerBlock;
  const int64_t count = x.elements();
  const float* values = x.as<float>();
  double* sums = block_sums.as<double>();
  for (int64_t first = 0; first < block_sums.cols; first += kBlocksAtOnce) {
    const int64_t start = first * kNormBlockElements;
    const int64_t end = std::min(count, start + kBlocksAtOnce * kNormBlockElements);
    const int64_t pieces = (end - start + kPiece - 1) / kPiece;
    cpu.pool.ParallelFor(pieces, [&](int64_t piece, int) {
      const int64_t begin = start + piece * kPiece;
      cpu.scratch.partial_sums[piece] = cpu.ops.squared_norm(values + begin, std::min(kPiece, end - begin));
    });
    for (int64_t piece = 0; piece < pieces; ++piece) {
      double& sum = sums[first + piece / kPiecesPerBlock];
      sum = (piece % kPiecesPerBlock == 0 ? 0.0 : sum) + cpu.scratch.partial_sums[piece];
    }
  }
}

void CpuAdamW(const CpuContext& cpu, const AdamWArgs& args) {
  const double step = static_cast<double>(args.step);
  const AdamWLoop loop = {.master = args.master.as<float>(),
                          .grad = args.grad.as<float>(),
                          .m = RowsOf(args.m),
                          .v = RowsOf(args.v),
                          .compute = RowsOf(args.compute),
                          .grad_scale = static_cast<float>(args.grad_scale),
                          .beta1 = static_cast<float>(args.beta1),
                          .beta2 = static_cast<float>(args.beta2),
                          .one_minus_beta1 = static_cast<float>(1 - args.beta1),
                          .one_minus_beta2 = static_cast<float>(1 - args.beta2),
                          .m_correction = static_cast<float>(1 / (1 - std::pow(args.beta1, step))),
                          .v_correction = static_cast<float>(1 / (1 - std::pow(args.beta2, step))),
                          .eps = static_cast<float>(args.eps),
                          .learning_rate = static_cast<float>(args.learning_rate),
                          .weight_decay = static_cast<float>(args.weight_decay)};
  cpu.pool.ParallelRanges(args.master.elements(), kGrainElements,
                          [&](int64_t begin, int64_t end, int) { cpu.ops.adamw(loop, begin, end); });
}

void CpuEma(const CpuContext& cpu, ConstView weights, double decay, View ema) {
  const float keep = static_cast<float>(decay);
  const float take = static_cast<float>(1 - decay);
  if (weights.contiguous() && ema.contiguous()) {
    weights = weights.Reshape(1, weights.elements());
    ema = ema.Reshape(1, ema.elements());
  }
  for (int64_t row = 0; row < weights.rows; ++row) {
    cpu.pool.ParallelRanges(weights.cols, kGrainElements, [&](int64_t begin, int64_t end, int) {
      cpu.ops.ema(weights.as<float>(row) + begin, keep, take, ema.as<float>(row) + begin, end - begin);
    });
  }
}

}  // namespace shoestring
