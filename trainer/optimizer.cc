// One pass over the gradients for the norm, one fused pass over everything for the update.
#include "trainer/optimizer.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {

GradientNorm::GradientNorm(Arena& arena, const HeldTable& held) : held_(held) {
  const int64_t blocks = held.first_block().back();
  sums_ = arena.Allocate(Purpose::kGradients, "norm block sums", DType::kF64, 1, blocks);
  host_sums_.resize(blocks);
}

absl::StatusOr<double> GradientNorm::Compute(Backend& backend, Stream& stream, const Gradient& gradient,
                                             const RankLinks& links) {
  backend.Zero(stream, sums_);
  for (size_t i = 0; i < held_.held().size(); ++i) {
    const Parameter& p = held_.parameters()[i];
    const HeldParameter& held = held_.held()[i];
    const int64_t matrix = p.rows * p.cols, end = held.reduced.first + held.reduced.count;
    for (int64_t first = held.reduced.first; first < end;) {
      const int64_t m = first / matrix, in_matrix = first % matrix;
      const int64_t count = std::min(end - first, matrix - in_matrix);
      CHECK_EQ(in_matrix % kNormBlockElements, 0);
      const int64_t block = held_.first_block()[held.table_index] + (held.first_matrix + m) * NormBlocks(matrix) +
                            in_matrix / kNormBlockElements;
      backend.SquaredNorm(stream, gradient.reduced[i].Columns(first - held.reduced.first, count),
                          sums_.Columns(block, NormBlocks(count)));
      first += count;
    }
  }
  // A block has one rank that sums it; the others add zero.
  RETURN_IF_ERROR(links.world->AllReduce(stream, sums_, links.Named("gradient norm")));
  backend.CopyToHost(stream, sums_, host_sums_.data());
  backend.Synchronize(stream);
  double total = 0.0;
  for (double sum : host_sums_) total += sum;
  return std::sqrt(total);
}

double ClipScale(double norm, double clip_norm) { return clip_norm > 0.0 && norm > clip_norm ? clip_norm / norm : 1.0; }

absl::Status UpdateParameters(Backend& backend, Stream& stream, const OptimizerSettings& settings,
                              const Gradient& gradient, TrainState& state, const RankLinks& links) {
  AdamWArgs args;
  args.learning_rate = settings.learning_rate;
  args.beta1 = settings.adamw.beta1();
  args.beta2 = settings.adamw.beta2();
  args.eps = settings.adamw.eps();
  args.grad_scale = settings.grad_scale;
  args.step = settings.step;
  for (size_t i = 0; i < state.table().size(); ++i) {
    const Parameter& p = state.table()[i];
    const int64_t count = state.held().held()[i].kept.count;
    if (!p.trained || count == 0) continue;
    const ParameterState& parameter = state.parameter(i);
    const View copy = state.KeptCopy(i);
    const bool fused = copy && copy.dtype != DType::kF32;
    args.master = parameter.master.Reshape(1, count);
    args.grad = gradient.kept[i];
    args.m = parameter.m.Reshape(1, count);
    args.v = parameter.v.Reshape(1, count);
    args.compute = fused ? copy : View();
    args.weight_decay = p.decay ? settings.adamw.weight_decay() : 0.0;
    backend.AdamW(stream, args);
    if (copy && !fused) backend.Copy(stream, args.master, copy);
    if (settings.ema_decay >= 0.0) backend.Ema(stream, parameter.master, settings.ema_decay, parameter.ema);
  }
  return state.GatherCompute(backend, stream, links);
}

}  // namespace shoestring
