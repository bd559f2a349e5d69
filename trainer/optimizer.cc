// One pass over the gradients for the norm, one fused pass over everything for the update.
#include "trainer/optimizer.h"

#include <cmath>

#include "base/check.h"

namespace shoestring {
namespace {

int64_t BlocksOf(const Parameter& p) { return p.trained ? p.stack * NormBlocks(p.rows * p.cols) : 0; }

}  // namespace

GradientNorm::GradientNorm(Arena& arena, const std::vector<Parameter>& table) : table_(table) {
  int64_t blocks = 0;
  for (const Parameter& p : table_) blocks += BlocksOf(p);
  sums_ = arena.Allocate(Purpose::kGradients, "norm block sums", DType::kF64, 1, blocks);
  host_sums_.resize(blocks);
}

double GradientNorm::Compute(Backend& backend, Stream& stream, const GradientSet& gradients) {
  int64_t next = 0;
  for (size_t i = 0; i < table_.size(); ++i) {
    const Parameter& p = table_[i];
    if (!p.trained) continue;
    const int64_t blocks = NormBlocks(p.rows * p.cols);
    for (int64_t matrix = 0; matrix < p.stack; ++matrix) {
      backend.SquaredNorm(stream, gradients.of(i).Rows(matrix * p.rows, p.rows), sums_.Columns(next, blocks));
      next += blocks;
    }
  }
  backend.CopyToHost(stream, sums_, host_sums_.data());
  backend.Synchronize(stream);
  double total = 0.0;
  for (double sum : host_sums_) total += sum;
  return std::sqrt(total);
}

double ClipScale(double norm, double clip_norm) { return clip_norm > 0.0 && norm > clip_norm ? clip_norm / norm : 1.0; }

void UpdateParameters(Backend& backend, Stream& stream, const OptimizerSettings& settings, const GradientSet& gradients,
                      const TrainState& state) {
  AdamWArgs args;
  args.learning_rate = settings.learning_rate;
  args.beta1 = settings.adamw.beta1();
  args.beta2 = settings.adamw.beta2();
  args.eps = settings.adamw.eps();
  args.grad_scale = settings.grad_scale;
  args.step = settings.step;
  for (size_t i = 0; i < state.table().size(); ++i) {
    const Parameter& p = state.table()[i];
    if (!p.trained) continue;
    const ParameterState& parameter = state.parameter(i);
    args.master = parameter.master;
    args.grad = gradients.of(i);
    args.m = parameter.m;
    args.v = parameter.v;
    args.compute = parameter.compute;
    args.weight_decay = p.decay ? settings.adamw.weight_decay() : 0.0;
    backend.AdamW(stream, args);
    QuantiseWeight(backend, stream, p, parameter.compute, parameter.quantised);
    if (settings.ema_decay >= 0.0) backend.Ema(stream, parameter.master, settings.ema_decay, parameter.ema);
  }
}

}  // namespace shoestring
