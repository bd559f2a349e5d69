// The step: uploads the batch, runs the program, folds the sums, checks, updates.
#include "trainer/train_step.h"

#include <algorithm>
#include <cmath>

#include "absl/types/span.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "parallel/local_exchange.h"
#include "parallel/pipeline/build.h"
#include "trainer/bias_update.h"
#include "trainer/nan_guard.h"

namespace shoestring {
namespace {

constexpr StageId kOnlyStage{0};

ModelShape ShapeOf(const config::RunConfig& config, const Schedule& schedule, int phase) {
  const config::PhaseSettings& settings = schedule.settings(phase);
  return MakeModelShape(config.model(), settings.yarn, config.precision(), settings.phase->micro_batch(),
                        settings.phase->sequence_length());
}

BatchShape BatchShapeOf(const config::RunConfig& config, const StepPlan& largest) {
  BatchShape shape;
  shape.sequence_length = largest.sequence_length;
  shape.max_sequences = largest.sequences;
  shape.mtp_depth = config.model().mtp_depth();
  shape.vocab_size = config.model().vocab_size();
  shape.document_mask = config.data().document_mask();
  shape.eos_id = config.model().eos_id();
  return shape;
}

}  // namespace

// Hands the model the accumulators of the lane that a micro-batch belongs to, and takes the time.
class TrainStep::LaneStage final : public Stage {
 public:
  LaneStage(StageModel& model, GradientSum& sum, Clock& clock) : model_(model), sum_(sum), clock_(clock) {}

  void Start(int64_t waves) {
    waves_ = waves;
    lane_ = -1;
    forward_nanos = 0;
  }
  void Forward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) override {
    const int64_t start = clock_.MonotonicNanos();
    model_.Forward(id, tokens, slot, input, output);
    forward_nanos += clock_.MonotonicNanos() - start;
  }
  void BackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                     View d_input) override {
    model_.BackwardInput(id, tokens, slot, d_output, d_input);
  }
  // One rank takes its lanes one after the other, so that one set of accumulators is open at a time.
  void BackwardWeight(MicroBatchId id, const MicroBatchTokens& tokens, int slot) override {
    if (id.wave == 0) {
      CHECK_EQ(id.lane, lane_ + 1);
      lane_ = id.lane;
      model_.SetGradients(sum_.BeginLane().views);
    }
    CHECK_EQ(id.lane, lane_);
    model_.BackwardWeight(id, tokens, slot);
    if (id.wave + 1 == waves_) sum_.EndLane();
  }

  int64_t forward_nanos = 0;

 private:
  StageModel& model_;
  GradientSum& sum_;
  Clock& clock_;
  int64_t waves_ = 0;
  int64_t lane_ = -1;
};

// The surroundings of one rank: nobody to talk to.
class TrainStep::Context final : public ExecutionContext {
 public:
  Context(TrainStep& step, int64_t waves) : step_(step), waves_(waves) {}

  MicroBatchId Id(const Work& work) const override { return {work.micro_batch / waves_, work.micro_batch % waves_}; }
  const MicroBatchTokens& Tokens(const Work& work) const override {
    if (tokens_of_ != work.micro_batch) {
      tokens_ = step_.device_batch_.MicroBatch(work.micro_batch);
      tokens_of_ = work.micro_batch;
    }
    return tokens_;
  }
  absl::Status Send(const Action&, ConstView) override { return absl::InternalError("one rank has no peer"); }
  absl::Status Receive(const Action&, View) override { return absl::InternalError("one rank has no peer"); }
  absl::Status Reduce(StageId) override {
    step_.gradients_ = &step_.sum_.Finish();
    return absl::OkStatus();
  }

 private:
  TrainStep& step_;
  const int64_t waves_;
  mutable MicroBatchTokens tokens_;
  mutable int64_t tokens_of_ = -1;
};

TrainStep::TrainStep(const config::RunConfig& config, const Schedule& schedule, int phase, TrainState& state,
                     Backend& backend, Stream& stream, Arena& arena, Clock& clock)
    : train_(config.train()),
      schedule_(schedule),
      state_(state),
      backend_(backend),
      stream_(stream),
      clock_(clock),
      shape_(ShapeOf(config, schedule, phase)),
      largest_(schedule.LargestStep(phase)),
      batch_shape_(BatchShapeOf(config, largest_)),
      exchange_(MakeLocalExchange(MakeExchangeShape(shape_))),
      device_batch_(arena, batch_shape_, largest_.micro_batch),
      sum_(backend, stream, arena, state.table(), largest_.lanes),
      norm_(arena, state.table()),
      model_(backend, stream, arena, shape_, state.table(), StagePlacement::Whole(shape_),
             MakeRecomputeOptions(config.recompute()), *exchange_),
      lane_stage_(std::make_unique<LaneStage>(model_, sum_, clock)) {
  const int64_t columns = LossColumns(shape_);
  accumulators_.losses = arena.Allocate(Purpose::kData, "losses", DType::kF64, largest_.micro_batches(), columns);
  host_losses_.resize(largest_.micro_batches() * columns);
  loss_column_.resize(largest_.micro_batches());
  token_loss_ = arena.Allocate(Purpose::kData, "token losses", DType::kF32, 1, shape_.tokens());
  host_token_loss_.resize(shape_.tokens());
  BindState(arena);
  device_batch_.WritePositions(backend_, stream_);
  PrepareProgram(largest_.micro_batches());
}

TrainStep::~TrainStep() = default;

void TrainStep::BindState(Arena& arena) {
  std::vector<MutableOperand> weights;
  for (size_t i = 0; i < state_.table().size(); ++i) {
    weights.push_back(state_.parameter(i).weight());
    if (state_.table()[i].trained) continue;
    bias_parameters_.push_back(i);
    accumulators_.expert_counts.push_back(
        arena.Allocate(Purpose::kData, "expert counts", DType::kI64, 1, state_.table()[i].elements()));
    host_counts_.emplace_back(state_.table()[i].elements());
  }
  host_bias_.resize(shape_.experts);
  model_.SetWeights(weights);
}

// Slots do not depend on the number of micro-batches, so memory is taken once.
void TrainStep::PrepareProgram(int64_t micro_batches) {
  if (micro_batches == program_micro_batches_) return;
  executor_.reset();
  const config::LayoutConfig one_rank;
  const absl::StatusOr<Program> program = BuildProgram(one_rank, *Mesh::Create(one_rank), micro_batches);
  CHECK(program.ok());
  actions_ = program->positions[0];
  if (stages_.empty()) {
    const int slots = PlanSlots(actions_).live.at(kOnlyStage);
    stages_[kOnlyStage] = {lane_stage_.get(), std::vector<SlotBuffers>(slots)};
    model_.Allocate(slots, 1);
  }
  executor_ = std::make_unique<Executor>(actions_, stages_);
  program_micro_batches_ = micro_batches;
}

absl::Status TrainStep::ComputeGradients(const StepPlan& plan, const HostBatch& batch, StepResult& result) {
  const int64_t start = clock_.MonotonicNanos();
  PrepareProgram(plan.micro_batches());
  result.plan = plan;
  result.times = StepTimes();
  const double tokens = static_cast<double>(plan.tokens);
  LossScales scales;
  scales.main = 1.0 / tokens;
  if (shape_.mtp_depth > 0) scales.mtp = plan.mtp_weight / (static_cast<double>(shape_.mtp_depth) * tokens);
  if (shape_.experts > 0) scales.balance = plan.balance_alpha / static_cast<double>(plan.sequences);
  accumulators_.waves_per_lane = plan.waves;
  model_.SetStep(scales, accumulators_);
  for (const View& counts : accumulators_.expert_counts) backend_.Zero(stream_, counts);
  device_batch_.Upload(backend_, stream_, batch);
  backend_.ResetWork();
  lane_stage_->Start(plan.waves);
  Context context(*this, plan.waves);
  RETURN_IF_ERROR(executor_->Run(context));
  RETURN_IF_ERROR(ReadLosses(plan, result));
  ReadLoads(result);
  result.work = backend_.work();
  result.times.forward_s = static_cast<double>(lane_stage_->forward_nanos) * 1e-9;
  const double elapsed_s = static_cast<double>(clock_.MonotonicNanos() - start) * 1e-9;
  result.times.backward_s = elapsed_s - result.times.forward_s;
  result.times.total_s = elapsed_s;
  return absl::OkStatus();
}

absl::Status TrainStep::ReadLosses(const StepPlan& plan, StepResult& result) {
  const int64_t columns = LossColumns(shape_);
  backend_.CopyToHost(stream_, accumulators_.losses, host_losses_.data());
  backend_.Synchronize(stream_);
  const absl::Span<double> column = absl::MakeSpan(loss_column_.data(), plan.micro_batches());
  const auto sum_of = [&](int64_t c, absl::string_view name, double& sum) -> absl::Status {
    for (size_t m = 0; m < column.size(); ++m) column[m] = host_losses_[m * columns + c];
    sum = CanonicalSum(column.data(), plan.lanes, plan.waves);
    return CheckLosses(name, column, plan.waves);
  };
  const double tokens = static_cast<double>(plan.tokens);
  double sum = 0.0;
  RETURN_IF_ERROR(sum_of(0, "loss", sum));
  result.loss = sum / tokens;
  double mtp = 0.0;
  for (int64_t k = 1; k <= shape_.mtp_depth; ++k) {
    RETURN_IF_ERROR(sum_of(k, "loss_mtp", sum));
    mtp += sum / tokens;
  }
  result.loss_mtp = shape_.mtp_depth > 0 ? mtp / static_cast<double>(shape_.mtp_depth) : 0.0;
  return sum_of(columns - 1, "loss_balance", result.loss_balance);
}

void TrainStep::ReadLoads(StepResult& result) {
  const size_t layers = bias_parameters_.size();
  result.moe_layers.resize(layers);
  result.max_over_mean_load.resize(layers);
  double sum = 0.0;
  for (size_t i = 0; i < layers; ++i) {
    backend_.CopyToHost(stream_, accumulators_.expert_counts[i], host_counts_[i].data());
    backend_.Synchronize(stream_);
    result.moe_layers[i] = state_.table()[bias_parameters_[i]].layer;
    result.max_over_mean_load[i] = MaxOverMean(host_counts_[i]);
    sum += result.max_over_mean_load[i];
  }
  result.expert_counts = host_counts_;  // of the same sizes after the first step: nothing is allocated
  result.mean_max_over_mean_load = layers > 0 ? sum / static_cast<double>(layers) : 0.0;
}

absl::Status TrainStep::Update(const StepPlan& plan, StepResult& result) {
  CHECK(gradients_ != nullptr);
  const int64_t start = clock_.MonotonicNanos();
  const GradientSet& gradients = *gradients_;
  gradients_ = nullptr;
  result.grad_norm = norm_.Compute(backend_, stream_, gradients);
  if (!std::isfinite(result.grad_norm)) {
    RETURN_IF_ERROR(CheckGradients(backend_, stream_, state_.table(), gradients, norm_.block_sums()));
    return StopOnPurpose("the gradient norm is beyond the range of double; no parameter was changed");
  }
  result.grad_scale = ClipScale(result.grad_norm, train_.clip_norm());
  OptimizerSettings settings;
  settings.adamw = train_.adamw();
  settings.learning_rate = plan.learning_rate;
  settings.grad_scale = result.grad_scale;
  settings.ema_decay = train_.has_ema() ? EmaDecay(train_.ema(), plan.tokens) : -1.0;
  settings.step = state_.position.step + 1;
  UpdateParameters(backend_, stream_, settings, gradients, state_);
  UpdateBiases(plan, result);
  backend_.Synchronize(stream_);
  state_.position = schedule_.Advance(state_.position, plan);
  result.position = state_.position;
  result.times.optimizer_s = static_cast<double>(clock_.MonotonicNanos() - start) * 1e-9;
  result.times.total_s += result.times.optimizer_s;
  return absl::OkStatus();
}

void TrainStep::UpdateBiases(const StepPlan& plan, StepResult& result) {
  result.bias_abs_max = 0.0;
  for (size_t i = 0; i < bias_parameters_.size(); ++i) {
    const View bias = state_.parameter(bias_parameters_[i]).master;
    backend_.CopyToHost(stream_, bias, host_bias_.data());
    backend_.Synchronize(stream_);
    UpdateBias(host_counts_[i], plan.bias_speed, absl::MakeSpan(host_bias_));
    backend_.CopyFromHost(stream_, host_bias_.data(), bias);
    backend_.Synchronize(stream_);  // the host's copy is used again
    for (float b : host_bias_) result.bias_abs_max = std::max(result.bias_abs_max, std::abs(static_cast<double>(b)));
  }
}

void TrainStep::Evaluate(const HostBatch& batch, double& loss_sum, int64_t& targets) {
  CHECK_EQ(batch.sequences % shape_.sequences, 0);
  device_batch_.Upload(backend_, stream_, batch);
  for (int64_t m = 0; m < batch.sequences / shape_.sequences; ++m) {
    model_.EvaluateLoss(device_batch_.MicroBatch(m), 0, token_loss_);
    backend_.CopyToHost(stream_, token_loss_, host_token_loss_.data());
    backend_.Synchronize(stream_);
    double sum = 0.0;
    for (float loss : host_token_loss_) sum += static_cast<double>(loss);
    loss_sum += sum;
  }
  targets += CountTargets(batch_shape_, batch);
}

void TrainStep::MeasureEvaluation() { model_.EvaluateLoss(device_batch_.MicroBatch(0), 0, token_loss_); }

}  // namespace shoestring
