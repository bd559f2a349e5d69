// Like a training step of one micro-batch without the optimizer.
#include "trainer/numerics/probe_model.h"

#include "parallel/local_exchange.h"
#include "trainer/train_state.h"

namespace shoestring {
namespace {

constexpr RecomputeOptions kRecompute = {.norms = false, .mla_up = false, .swiglu = true};

LossScales ScalesOf(const StepPlan& plan, const ModelShape& shape) {
  LossScales scales;
  scales.main = 1.0 / static_cast<double>(plan.tokens);
  if (shape.mtp_depth > 0) {
    scales.mtp = plan.mtp_weight / static_cast<double>(shape.mtp_depth * plan.tokens);
  }
  if (shape.experts > 0) scales.balance = plan.balance_alpha / static_cast<double>(plan.sequences);
  return scales;
}

}  // namespace

ProbeModel::ProbeModel(Backend& backend, Arena& arena, const ModelShape& shape, const ProbeInputs& inputs)
    : backend_(backend),
      shape_(shape),
      inputs_(inputs),
      stream_(backend.MakeStream()),
      exchange_(MakeLocalExchange(MakeExchangeShape(shape))),
      batch_(arena, inputs.batch_shape, shape.sequences),
      model_(backend, *stream_, arena, shape_, inputs.table, WholeModel(shape), kRecompute, *exchange_),
      gradients_(AllocateGradientSet(arena, inputs.table)) {
  for (size_t i = 0; i < inputs.table.size(); ++i) {
    weights_.push_back(AllocateWeight(arena, i));
    if (inputs.table[i].trained) continue;
    accumulators_.expert_counts.push_back(
        arena.Allocate(Purpose::kData, "expert counts", DType::kI64, 1, inputs.table[i].elements()));
  }
  const int64_t columns = LossColumns(shape);
  accumulators_.losses = arena.Allocate(Purpose::kData, "losses", DType::kF64, 1, columns);
  accumulators_.waves_per_lane = 1;
  host_losses_.resize(columns);
  model_.Allocate(/*slots=*/1, /*pending_slots=*/1);
  model_.SetWeights(weights_);
}

MutableOperand ProbeModel::AllocateWeight(Arena& arena, size_t i) {
  const Parameter& p = inputs_.table[i];
  const bool copied = p.compute_copy && shape_.act != DType::kF32;
  copies_.push_back(copied ? arena.Allocate(Purpose::kComputeWeights, p.name, shape_.act, p.stack * p.rows, p.cols)
                           : View());
  if (p.linear && shape_.formats.weight.quantised()) return AllocateQuantisedWeight(arena, p, shape_.formats.weight);
  return copied ? copies_.back() : inputs_.masters[i];
}

void ProbeModel::NameTensors(ProbeBackend& probe) const {
  for (size_t i = 0; i < weights_.size(); ++i) probe.NameWeight(inputs_.table[i], weights_[i]);
}

void ProbeModel::RefreshWeights() {
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (!copies_[i]) continue;
    backend_.Copy(*stream_, inputs_.masters[i], copies_[i]);
    if (weights_[i].quantised()) QuantiseWeight(backend_, *stream_, inputs_.table[i], copies_[i], weights_[i]);
  }
  batch_.WritePositions(backend_, *stream_);
}

void ProbeModel::Run(const HostBatch& batch, ProbeBackend* probe) {
  const auto begin = [&](ProbePhase phase) {
    if (probe != nullptr) probe->Begin(phase);
  };
  const MicroBatchId id;
  batch_.Upload(backend_, *stream_, batch);
  const MicroBatchTokens tokens = batch_.MicroBatch(0);
  for (const View& counts : accumulators_.expert_counts) backend_.Zero(*stream_, counts);
  backend_.Zero(*stream_, accumulators_.losses);
  backend_.Zero(*stream_, gradients_.whole);
  for (size_t i = 0; probe != nullptr && i < gradients_.views.size(); ++i) {
    for (const View& use : gradients_.views[i]) probe->NameGradient(inputs_.table[i], use);
  }
  model_.SetGradients(gradients_.views);
  model_.SetStep(ScalesOf(inputs_.plan, shape_), accumulators_);
  begin(ProbePhase::kForward);
  model_.Forward(id, tokens, /*slot=*/0, {}, {});
  begin(ProbePhase::kInputGradient);
  model_.BackwardInput(id, tokens, /*slot=*/0, {}, {});
  begin(ProbePhase::kWeightGradient);
  model_.BackwardWeight(id, tokens, /*slot=*/0);
  AddUses(backend_, *stream_, gradients_);
  backend_.CopyToHost(*stream_, accumulators_.losses, host_losses_.data());
  backend_.Synchronize(*stream_);
}

ProbeLosses ProbeModel::losses() const {
  const double tokens = static_cast<double>(shape_.tokens());
  ProbeLosses losses;
  losses.main = host_losses_.front() / tokens;
  for (int64_t k = 1; k <= shape_.mtp_depth; ++k) {
    losses.mtp += host_losses_[k] / tokens / static_cast<double>(shape_.mtp_depth);
  }
  for (int64_t c = 1 + shape_.mtp_depth; c < LossColumns(shape_); ++c) losses.balance += host_losses_[c];
  return losses;
}

ConstView ProbeModel::gradient(size_t parameter) const {
  return inputs_.table[parameter].trained ? ConstView(gradients_.of(parameter)) : ConstView();
}

}  // namespace shoestring
