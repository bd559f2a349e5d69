// The loop, and the measuring of the memory it will need.
#include "trainer/train_loop.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "configs/resolve.h"
#include "kernels/shape_backend.h"
#include "trainer/support.h"

namespace shoestring {
namespace {

// The schedule takes them, and any number of waves shows what one action needs.
int64_t SmallestWaves(const Schedule& schedule, int phase) {
  const StepPlan largest = schedule.LargestStep(phase);
  return config::BatchSequences(schedule.settings(phase), 0) / (largest.lanes * largest.micro_batch);
}

StateFormat FormatOf(const config::RunConfig& config) {
  StateFormat format;
  format.activation = config.precision().mode() == config::PrecisionConfig::FP32 ? DType::kF32 : DType::kBF16;
  format.moments = config.precision().moments() == config::PrecisionConfig::MOMENTS_BF16 ? DType::kBF16 : DType::kF32;
  format.ema = config.train().has_ema();
  format.linear = MakePrecisionFormats(config.precision(), format.activation).weight;
  return format;
}

// Phases do not move parameters (see CheckSupported), so the first one's layout is that of all.
config::LayoutConfig LayoutOf(const config::RunConfig& config) { return config::ResolvePhase(config, 0).layout; }

Mesh MeshOf(const config::RunConfig& config) {
  absl::StatusOr<Mesh> mesh = Mesh::Create(LayoutOf(config));
  CHECK(mesh.ok());
  return *std::move(mesh);
}

HeldTable HeldTableOf(const config::RunConfig& config, const RankLinks& links) {
  const bool copies = config.precision().mode() != config::PrecisionConfig::FP32;
  return HeldTable::Create(BuildParameterTable(config.model()), config.model(), LayoutOf(config), links.mesh,
                           links.rank, copies);
}

}  // namespace

MemoryNeed MeasureMemory(const config::RunConfig& config, const Backend& backend, Rank rank) {
  const std::unique_ptr<Backend> shapes = MakeShapeBackend(backend);
  const std::unique_ptr<Stream> stream = shapes->MakeStream();
  const Schedule schedule(config);
  const RankLinks links = LoopbackLinks(MeshOf(config), rank);
  const HeldTable held = HeldTableOf(config, links);
  Arena arena = Arena::Measuring();
  TrainState state(arena, held, FormatOf(config));
  for (int phase = 0; phase < schedule.phases(); ++phase) {
    const ArenaScope scope(arena);
    TrainStep step(config, schedule, phase, state, *shapes, *stream, arena, RealClock(), links);
    // More waves need no more memory, and the batch itself has its place already.
    StepPlan plan = schedule.LargestStep(phase);
    plan.waves = SmallestWaves(schedule, phase);
    plan.sequences = plan.lanes * plan.waves * plan.micro_batch;
    plan.tokens = plan.sequences * plan.sequence_length;
    HostBatch empty;
    StepResult result;
    CHECK(step.ComputeGradients(plan, empty, result).ok());
    state.position.phase = phase;
    CHECK(step.Update(plan, result).ok());
    step.MeasureEvaluation();
  }
  return {arena.high_water_bytes(), arena.Table()};
}

// Members in the order of their needs: the prefetcher's thread ends before its source goes.
struct Trainer::PhaseRun {
  PhaseRun(Trainer& trainer, int phase, std::unique_ptr<TokenSource> training, std::unique_ptr<TokenSource> validation)
      : phase(phase),
        scope(trainer.arena_),
        step(trainer.config_, trainer.schedule_, phase, *trainer.state_, trainer.backend_, *trainer.stream_,
             trainer.arena_, trainer.clock_, trainer.links_),
        training(std::move(training)),
        validation(std::move(validation)),
        prefetcher(*this->training, step.batch_shape()) {}

  const int phase;
  const ArenaScope scope;
  TrainStep step;
  const std::unique_ptr<TokenSource> training;
  const std::unique_ptr<TokenSource> validation;  // null: none
  HostBatch validation_batch;
  BatchPrefetcher prefetcher;
};

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const config::RunConfig& config, TrainData data,
                                                         Backend& backend, Clock& clock, const TrainOptions& options,
                                                         std::optional<RankLinks> links) {
  RETURN_IF_ERROR(CheckSupported(config));
  ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Create(LayoutOf(config)));
  if (!links.has_value()) links = SingleRank(backend, mesh);
  CHECK(links->mesh == mesh);
  MemoryNeed need = MeasureMemory(config, backend, links->rank);
  ASSIGN_OR_RETURN(MemoryBlock memory, MemoryBlock::Take(backend, need.bytes));
  auto trainer = std::unique_ptr<Trainer>(new Trainer(config, std::move(data), backend, clock, options,
                                                      *std::move(links), std::move(memory), std::move(need.table)));
  RETURN_IF_ERROR(trainer->RefreshCompute());
  return trainer;
}

Trainer::Trainer(const config::RunConfig& config, TrainData data, Backend& backend, Clock& clock,
                 const TrainOptions& options, RankLinks links, MemoryBlock memory, std::string memory_table)
    : config_(config),
      data_(std::move(data)),
      backend_(backend),
      clock_(clock),
      options_(options),
      links_(std::move(links)),
      schedule_(config),
      held_(HeldTableOf(config, links_)),
      memory_(std::move(memory)),
      memory_table_(std::move(memory_table)),
      arena_(memory_.data(), memory_.size_bytes()),
      stream_(backend.MakeStream()),
      state_(std::make_unique<TrainState>(arena_, held_, FormatOf(config))) {
  arena_.Freeze();  // from here on memory is taken in the scope of a phase or of an action
  ThreadPool pool(options.threads);
  state_->Initialize(backend_, *stream_, pool, config_.train().seed(), config_.model().init_std());
}

Trainer::~Trainer() = default;

absl::Status Trainer::EnterPhase(int phase) {
  phase_.reset();  // its memory is used again
  ASSIGN_OR_RETURN(std::unique_ptr<TokenSource> training, data_.training(phase));
  std::unique_ptr<TokenSource> validation;
  if (config_.train().has_validation() && data_.validation) {
    ASSIGN_OR_RETURN(validation, data_.validation(phase));
  }
  phase_ = std::make_unique<PhaseRun>(*this, phase, std::move(training), std::move(validation));
  return absl::OkStatus();
}

absl::StatusOr<TrainStep*> Trainer::CurrentStep() {
  const int phase = std::min(state_->position.phase, schedule_.phases() - 1);
  if (phase_ == nullptr || phase_->phase != phase) RETURN_IF_ERROR(EnterPhase(phase));
  return &phase_->step;
}

absl::StatusOr<const HostBatch*> Trainer::TakeBatch(const StepPlan& plan) {
  ASSIGN_OR_RETURN(const HostBatch* batch, phase_->prefetcher.Take(phase_->step.Samples(plan)));
  const RunPosition next = schedule_.Advance(state_->position, plan);
  if (options_.prefetch && next.phase == plan.phase) {
    phase_->prefetcher.Prefetch(phase_->step.Samples(schedule_.PlanStep(next)));
  }
  return batch;
}

absl::StatusOr<const StepResult*> Trainer::Step() {
  CHECK(!schedule_.Done(state_->position));
  ASSIGN_OR_RETURN(TrainStep * step, CurrentStep());
  const StepPlan plan = schedule_.PlanStep(state_->position);
  const int64_t start = clock_.MonotonicNanos();
  ASSIGN_OR_RETURN(const HostBatch* batch, TakeBatch(plan));
  const int64_t have_batch = clock_.MonotonicNanos();
  step->SetTrace(trace_);
  RETURN_IF_ERROR(step->ComputeGradients(plan, *batch, result_));
  RETURN_IF_ERROR(step->Update(plan, result_));
  result_.times.data_wait_s = static_cast<double>(have_batch - start) * 1e-9;
  result_.times.total_s = static_cast<double>(clock_.MonotonicNanos() - start) * 1e-9;
  return &result_;
}

absl::StatusOr<std::optional<ValidationResult>> Trainer::RunValidation() {
  if (phase_ == nullptr) RETURN_IF_ERROR(CurrentStep().status());
  if (phase_->validation == nullptr) return std::nullopt;
  int64_t sequences = config_.train().validation().sequences();
  if (data_.validation_samples > 0) sequences = std::min(sequences, data_.validation_samples);
  const int64_t start = clock_.MonotonicNanos();
  ASSIGN_OR_RETURN(ValidationResult result, Validate(phase_->step, *phase_->validation, sequences,
                                                     data_.validation_bytes_per_token, phase_->validation_batch));
  result.step = state_->position.step;
  result.seconds = static_cast<double>(clock_.MonotonicNanos() - start) * 1e-9;
  return result;
}

absl::StatusOr<StopReason> Trainer::Run() {
  // A position other than the first comes from a checkpoint, which need not be written again.
  saved_step_ = state_->position.step > 0 ? state_->position.step : -1;
  absl::Status started = Notify([this](TrainObserver& o) { return o.OnStart(*state_); });
  absl::StatusOr<StopReason> reason = started.ok() ? RunSteps() : absl::StatusOr<StopReason>(started);
  for (TrainObserver* observer : observers_) {
    observer->OnEnd(reason.status(), reason.ok() ? std::optional<StopReason>(*reason) : std::nullopt);
  }
  return reason;
}

absl::StatusOr<StopReason> Trainer::RunSteps() {
  ASSIGN_OR_RETURN(std::optional<StopReason> reason, ReasonToStop());
  while (!reason.has_value()) {
    ASSIGN_OR_RETURN(const StepResult* result, Step());
    RETURN_IF_ERROR(AfterStep(*result));
    ASSIGN_OR_RETURN(reason, ReasonToStop());
  }
  // Who asks for the machine back does not wait for a validation.
  if (*reason != StopReason::kRequested) RETURN_IF_ERROR(ValidateUnlessDone());
  RETURN_IF_ERROR(SaveUnlessSaved());
  return *reason;
}

absl::Status Trainer::AfterStep(const StepResult& result) {
  RETURN_IF_ERROR(Notify([&](TrainObserver& o) { return o.OnStep(result); }));
  const int64_t step = state_->position.step;
  const config::ValidationConfig& validation = config_.train().validation();
  if (config_.train().has_validation() && step % validation.interval_steps() == 0) {
    RETURN_IF_ERROR(ValidateUnlessDone());
  }
  const int64_t interval = config_.checkpoint().interval_steps();
  if (interval > 0 && step % interval == 0) RETURN_IF_ERROR(SaveUnlessSaved());
  return absl::OkStatus();
}

absl::Status Trainer::ValidateUnlessDone() {
  if (validated_step_ == state_->position.step) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::optional<ValidationResult> result, RunValidation());
  validated_step_ = state_->position.step;
  if (!result.has_value()) return absl::OkStatus();
  return Notify([&](TrainObserver& o) { return o.OnValidation(*result); });
}

absl::Status Trainer::SaveUnlessSaved() {
  if (saved_step_ == state_->position.step) return absl::OkStatus();
  RETURN_IF_ERROR(Notify([this](TrainObserver& o) { return o.OnCheckpointDue(*state_); }));
  saved_step_ = state_->position.step;
  for (TrainObserver* observer : observers_) observer->OnCheckpointSaved();
  return absl::OkStatus();
}

absl::Status Trainer::Notify(absl::FunctionRef<absl::Status(TrainObserver&)> call) {
  for (TrainObserver* observer : observers_) RETURN_IF_ERROR(call(*observer));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<StopReason>> Trainer::ReasonToStop() {
  if (schedule_.Done(state_->position)) return StopReason::kFinished;
  if (options_.max_steps > 0 && state_->position.step >= options_.max_steps) return StopReason::kStepLimit;
  bool stop = options_.stop != nullptr && options_.stop->load();
  if (links_.mesh.world_size() > 1) {
    ASSIGN_OR_RETURN(TrainStep * step, CurrentStep());
    ASSIGN_OR_RETURN(stop, step->OnAnyRank(stop));
  }
  return stop ? std::optional<StopReason>(StopReason::kRequested) : std::nullopt;
}

}  // namespace shoestring
