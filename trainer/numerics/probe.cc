// One pass to keep, one pass a preset to measure.
#include "trainer/numerics/probe.h"

#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "configs/resolve.h"
#include "configs/validate.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/shape_backend.h"
#include "trainer/memory_block.h"
#include "trainer/support.h"

namespace shoestring {
namespace {

// As checkpoints say it (docs/formats/checkpoint.md).
std::vector<int64_t> TensorShape(const Parameter& p) {
  if (p.domain == MeshDomain::kExpert) return {p.stack, p.rows, p.cols};
  if (p.decay) return {p.rows, p.cols};
  return {p.cols};
}

// Everything that passes share.
class Prober {
 public:
  // `request` outlives this object.
  Prober(const ProbeRequest& request, const HostBatch& batch)
      : request_(request),
        batch_(batch),
        backend_(MakeCpuBackend({.threads = request.threads})),
        shapes_(MakeShapeBackend(*backend_)),
        table_(BuildParameterTable(request.config.model())),
        batch_shape_(ProbeBatchShape(request.config, request.plan)) {}

  absl::Status ReadWeights(absl::FunctionRef<absl::Status(const std::vector<StateTensor>&)> read) {
    Arena measuring = Arena::Measuring();
    AllocateMasters(measuring);
    ASSIGN_OR_RETURN(MemoryBlock block, MemoryBlock::Map(measuring.high_water_bytes()));
    memory_ = std::make_unique<MemoryBlock>(std::move(block));
    Arena arena(memory_->data(), memory_->size_bytes());
    return read(AllocateMasters(arena));
  }

  // Fills `result` but its name; `routing` receives what tokens would have chosen, if it is asked for.
  absl::Status Pass(const config::RunConfig& config, TensorSink& sink, const Routing* forced, const Routing* compare,
                    PresetResult& result, Routing* routing) const {
    const config::PhaseSettings settings = config::ResolvePhase(config, request_.plan.phase);
    const ModelShape shape = MakeModelShape(config.model(), settings.yarn, config.precision(), batch_.sequences,
                                            request_.plan.sequence_length);
    const ProbeInputs inputs{table_, masters_, request_.plan, batch_shape_};
    Arena measuring = Arena::Measuring();
    ProbeModel(*shapes_, measuring, shape, inputs).Run(batch_, nullptr);
    ASSIGN_OR_RETURN(const MemoryBlock block, MemoryBlock::Map(measuring.high_water_bytes()));
    Arena arena(block.data(), block.size_bytes());
    ProbeBackend probe(*backend_, sink, static_cast<int>(shape.layers), static_cast<int>(shape.mtp_depth));
    probe.SetRouting(forced, compare);
    ProbeModel model(probe, arena, shape, inputs);
    model.NameTensors(probe);
    model.RefreshWeights();
    model.Run(batch_, &probe);
    for (size_t i = 0; i < table_.size(); ++i) {
      if (table_[i].trained) sink.Take(probe.GradientName(table_[i]), ReadElements(model.gradient(i)));
    }
    result.losses = model.losses();
    result.quantisers = probe.quantisers();
    result.routed_tokens = probe.routed_tokens();
    result.differing_tokens = probe.differing_tokens();
    if (routing != nullptr) *routing = probe.routing();
    return absl::OkStatus();
  }

 private:
  std::vector<StateTensor> AllocateMasters(Arena& arena) {
    masters_.clear();
    std::vector<StateTensor> tensors;
    for (const Parameter& p : table_) {
      masters_.push_back(arena.Allocate(Purpose::kMasterWeights, p.name, DType::kF32, p.stack * p.rows, p.cols));
      tensors.push_back({p.trained ? StateKind::kWeights : StateKind::kBias, p.name, TensorShape(p), masters_.back()});
    }
    return tensors;
  }

  const ProbeRequest& request_;
  const HostBatch& batch_;
  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<Backend> shapes_;
  const std::vector<Parameter> table_;
  const BatchShape batch_shape_;
  std::unique_ptr<MemoryBlock> memory_;
  std::vector<View> masters_;
};

PrecisionPreset Reference() {
  PrecisionPreset reference{"fp32", "the reference", {}};
  reference.precision.set_mode(config::PrecisionConfig::FP32);
  reference.precision.set_moments(config::PrecisionConfig::MOMENTS_FP32);
  return reference;
}

}  // namespace

absl::StatusOr<config::RunConfig> ConfigInPrecision(const config::RunConfig& config, const PrecisionPreset& preset) {
  config::RunConfig changed = config;
  *changed.mutable_precision() = preset.precision;
  // One micro-batch needs no more than one rank.
  changed.clear_layout();
  changed.mutable_train()->set_expert_lanes(1);
  changed.mutable_train()->set_reduction(config::TrainConfig::CANONICAL);
  for (config::Phase& phase : *changed.mutable_train()->mutable_phase()) {
    phase.clear_layout();
    phase.clear_expert_lanes();
  }
  std::vector<std::string> lines;
  for (const config::Problem& problem : config::FindProblems(changed)) {
    if (absl::StartsWith(problem.field, "precision")) lines.push_back(problem.ToString());
  }
  if (lines.empty()) lines = FindUnsupported(changed);
  if (lines.empty()) return changed;
  for (std::string& line : lines) line = absl::StrCat("--preset ", preset.name, ": ", line);
  return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
}

BatchShape ProbeBatchShape(const config::RunConfig& config, const StepPlan& plan) {
  BatchShape shape;
  shape.sequence_length = plan.sequence_length;
  shape.max_sequences = plan.micro_batch;
  shape.mtp_depth = config.model().mtp_depth();
  shape.vocab_size = config.model().vocab_size();
  shape.document_mask = config.data().document_mask();
  shape.eos_id = config.model().eos_id();
  return shape;
}

absl::StatusOr<ProbeResult> RunProbe(const ProbeRequest& request, const HostBatch& batch,
                                     absl::FunctionRef<absl::Status(const std::vector<StateTensor>&)> read_weights) {
  ASSIGN_OR_RETURN(const config::RunConfig reference_config, ConfigInPrecision(request.config, Reference()));
  std::vector<config::RunConfig> configs;
  for (const PrecisionPreset& preset : request.presets) {
    ASSIGN_OR_RETURN(configs.emplace_back(), ConfigInPrecision(request.config, preset));
  }
  Prober prober(request, batch);
  RETURN_IF_ERROR(prober.ReadWeights(read_weights));
  ProbeResult result;
  result.sequences = batch.sequences;
  result.sequence_length = request.plan.sequence_length;
  result.first_sample = batch.runs.runs[0].first;
  result.own_routing = request.own_routing;
  result.main_layers = request.config.model().layers();
  result.mtp_modules = request.config.model().mtp_depth();
  ReferenceTensors reference;
  Routing routing;
  PresetResult kept;
  RETURN_IF_ERROR(prober.Pass(reference_config, reference, nullptr, nullptr, kept, &routing));
  result.reference = kept.losses;
  for (size_t i = 0; i < configs.size(); ++i) {
    PresetResult& preset = result.presets.emplace_back();
    preset.preset = request.presets[i];
    MeasuringSink sink(reference);
    RETURN_IF_ERROR(prober.Pass(configs[i], sink, request.own_routing ? nullptr : &routing, &routing, preset, nullptr));
    preset.tensors = sink.tensors();
  }
  return result;
}

}  // namespace shoestring
