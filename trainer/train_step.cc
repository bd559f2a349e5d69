// The first half of a step: uploads the batch, runs the program, sums over ranks. Validation.
#include "trainer/train_step.h"

#include <algorithm>

#include "absl/types/span.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "parallel/local_exchange.h"
#include "parallel/make_exchange.h"
#include "parallel/pipeline/build.h"

namespace shoestring {
namespace {

ModelShape ShapeOf(const config::RunConfig& config, const Schedule& schedule, int phase) {
  const config::PhaseSettings& settings = schedule.settings(phase);
  return MakeModelShape(config.model(), settings.yarn, config.precision(), settings.phase->micro_batch(),
                        settings.phase->sequence_length());
}

BatchShape BatchShapeOf(const config::RunConfig& config, const StepPlan& largest, int data_ranks) {
  BatchShape shape;
  shape.sequence_length = largest.sequence_length;
  shape.max_sequences = largest.sequences / data_ranks;
  shape.mtp_depth = config.model().mtp_depth();
  shape.vocab_size = config.model().vocab_size();
  shape.document_mask = config.data().document_mask();
  shape.eos_id = config.model().eos_id();
  return shape;
}

RowFormat RowsAs(const OperandFormat& format) { return {format.dtype, format.tile}; }

// The validator has seen that experts divide and machines are whole.
std::unique_ptr<ExpertExchange> ExchangeOf(const config::LayoutConfig& layout, const ModelShape& shape,
                                           const RankLinks& links, Arena& arena) {
  if (shape.experts == 0) return MakeLocalExchange(MakeExchangeShape(shape));
  ExchangeOptions options;
  options.hidden = shape.hidden;
  options.act = shape.act;
  options.dispatch = RowsAs(shape.formats.dispatch);
  options.dispatch_gradient = RowsAs(shape.formats.dispatch_gradient);
  options.timeout_s = links.timeout_s;
  absl::StatusOr<std::unique_ptr<ExpertExchange>> exchange =
      MakeExchange(layout, links.mesh, links.rank, MakeExchangeShape(shape), options, *links.experts, arena);
  CHECK(exchange.ok());
  return *std::move(exchange);
}

int64_t ExpertLanes(const StepPlan& plan, const ModelShape& shape) { return shape.experts > 0 ? plan.expert_lanes : 1; }

// Input gradients of a stage whose weight gradients are still to come, at most, the one under way included.
int PendingSlots(const std::vector<Action>& actions, StageId stage) {
  int pending = 0, most = 1;
  for (const Action& action : actions) {
    if (action.kind == ActionKind::kBackwardInput && action.work.stage == stage) most = std::max(most, ++pending);
    if (action.kind == ActionKind::kBackwardWeight && action.work.stage == stage) --pending;
    const bool both = action.kind == ActionKind::kBackward && action.work.stage == stage;
    const bool overlapped = action.kind == ActionKind::kOverlapped && action.paired.stage == stage;
    if (both || overlapped) most = std::max(most, pending + 1);
  }
  return most;
}

}  // namespace

// Hands a stage of the model the accumulators of the lane that a micro-batch belongs to, and takes the time.
class TrainStep::RankStage final : public Stage {
 public:
  RankStage(const HeldStage& held, Direction direction, std::unique_ptr<StageModel> model, GradientSum& sum,
            Clock& clock)
      : id(held.id), direction(direction), model(std::move(model)), sum_(sum), clock_(clock) {}

  void Start(const LaneShare& share) {
    share_ = &share;
    next_ = 0;
    forward_nanos = 0;
  }
  void Forward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) override {
    model->Forward(id, tokens, slot, input, output);
  }
  void BackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                     View d_input) override {
    model->BackwardInput(id, tokens, slot, d_output, d_input);
  }
  void StartForward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) override {
    model->StartForward(id, tokens, slot, input, output);
  }
  bool StepForward() override {
    const int64_t start = clock_.MonotonicNanos();
    if (trace != nullptr) trace->BeginPiece();
    const bool more = model->StepForward();
    if (more && trace != nullptr) trace->EndPiece(/*forward=*/true);
    forward_nanos += clock_.MonotonicNanos() - start;
    return more;
  }
  void StartBackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                          View d_input) override {
    model->StartBackwardInput(id, tokens, slot, d_output, d_input);
  }
  bool StepBackwardInput() override {
    if (trace != nullptr) trace->BeginPiece();
    const bool more = model->StepBackwardInput();
    if (more && trace != nullptr) trace->EndPiece(/*forward=*/false);
    return more;
  }
  // Weight gradients come in the order of micro-batches, so that only one block of lanes has accumulators open.
  void BackwardWeight(MicroBatchId micro_batch, const MicroBatchTokens& tokens, int slot) override {
    const MicroBatchId expected = share_->Id(next_);
    CHECK(expected.lane == micro_batch.lane && expected.wave == micro_batch.wave);
    const int64_t block = share_->BlockOf(next_);
    const int64_t of_block = share_->block * share_->waves;
    if (next_ % of_block == 0) {
      sum_.OpenBlock(id, *share_, block);
      for (int64_t sum = 0; sum < model->expert_sums(); ++sum) {
        model->SetExpertGradients(sum, sum_.ExpertViews(id, *share_, block, sum));
      }
    }
    model->SetGradients(sum_.DenseViews(id, micro_batch.lane));
    model->BackwardWeight(micro_batch, tokens, slot);
    if (++next_ % of_block == 0) sum_.CloseBlock(id, *share_, block);
  }

  const StageId id;
  const Direction direction;
  const std::unique_ptr<StageModel> model;
  SlotBuffers evaluation;      // of slot 0
  StepTrace* trace = nullptr;  // null: nothing is recorded
  int64_t forward_nanos = 0;

 private:
  GradientSum& sum_;
  Clock& clock_;
  const LaneShare* share_ = nullptr;
  int64_t next_ = 0;
};

// The surroundings of a rank's program: its micro-batches and its neighbours in the pipeline.
class TrainStep::Context final : public ExecutionContext {
 public:
  explicit Context(TrainStep& step) : step_(step) {}

  MicroBatchId Id(const Work& work) const override { return step_.shares_[work.direction.value].Id(work.micro_batch); }
  const MicroBatchTokens& Tokens(const Work& work) const override {
    tokens_ = step_.device_batch_.MicroBatch(step_.shares_[work.direction.value].Place(Id(work)));
    return tokens_;
  }
  absl::Status Send(const Action& action, ConstView x) override {
    const bool forward = action.kind == ActionKind::kSendForward;
    return Link(forward).Send(step_.stream_, x, action.peer, Named(forward));
  }
  absl::Status Receive(const Action& action, View x) override {
    const bool forward = action.kind == ActionKind::kReceiveForward;
    return Link(forward).Receive(step_.stream_, x, action.peer, Named(forward));
  }
  absl::Status Reduce(StageId stage) override { return step_.sum_.StageDone(stage); }
  void Started(const Action&) override {
    if (step_.trace_ != nullptr) step_.trace_->BeginAction();
  }
  absl::Status Finished(const Action& action) override {
    if (step_.trace_ != nullptr) step_.trace_->EndAction(action);
    step_.executed_.push_back(action);
    return step_.exchange_->status();
  }

 private:
  Communicator& Link(bool forward) { return forward ? *step_.links_.forward : *step_.links_.backward; }
  CallOptions Named(bool forward) const { return step_.links_.Named(forward ? "activations" : "their gradients"); }

  TrainStep& step_;
  mutable MicroBatchTokens tokens_;
};

TrainStep::TrainStep(const config::RunConfig& config, const Schedule& schedule, int phase, TrainState& state,
                     Backend& backend, Stream& stream, Arena& arena, Clock& clock, const RankLinks& links)
    : train_(config.train()),
      schedule_(schedule),
      state_(state),
      backend_(backend),
      stream_(stream),
      clock_(clock),
      links_(links),
      layout_(schedule.settings(phase).layout),
      shape_(ShapeOf(config, schedule, phase)),
      largest_(Taken(schedule.LargestStep(phase))),
      batch_shape_(BatchShapeOf(config, largest_, links.mesh.data_ranks())),
      exchange_(ExchangeOf(layout_, shape_, links, arena)),
      device_batch_(arena, batch_shape_, largest_.micro_batch),
      sum_(backend, stream, arena, state.held(), links, largest_.lanes, ExpertLanes(largest_, shape_)),
      norm_(arena, state.held()) {
  const int64_t columns = LossColumns(shape_);
  accumulators_.losses = arena.Allocate(Purpose::kData, "losses", DType::kF64, largest_.micro_batches(), columns);
  host_losses_.resize(largest_.micro_batches() * columns);
  loss_column_.resize(largest_.micro_batches());
  token_loss_ = arena.Allocate(Purpose::kData, "token losses", DType::kF32, 1, shape_.tokens());
  host_token_loss_.resize(shape_.tokens());
  const int64_t evaluated = largest_.micro_batches() + 1;
  evaluated_ = arena.Allocate(Purpose::kData, "evaluated losses", DType::kF64, 1, evaluated);
  host_evaluated_.resize(evaluated);
  found_ = arena.Allocate(Purpose::kData, "element that is not finite", DType::kF64, 1, 2);
  MakeStages(config, arena);
  BindState(arena);
  device_batch_.WritePositions(backend_, stream_);
  PrepareProgram(largest_.waves);
  AllocateStages(arena);
  executor_ = std::make_unique<Executor>(actions_, stages_);
}

TrainStep::~TrainStep() = default;

void TrainStep::MakeStages(const config::RunConfig& config, Arena& arena) {
  for (const HeldStage& held : state_.held().stages()) {
    auto model = std::make_unique<StageModel>(backend_, stream_, arena, shape_, state_.table(), held.placement,
                                              MakeRecomputeOptions(config.recompute()), *exchange_);
    rank_stages_.push_back(
        std::make_unique<RankStage>(held, links_.DirectionOf(held.id), std::move(model), sum_, clock_));
  }
}

void TrainStep::BindState(Arena& arena) {
  std::vector<MutableOperand> weights;
  for (size_t i = 0; i < state_.table().size(); ++i) weights.push_back(state_.parameter(i).weight());
  for (const auto& stage : rank_stages_) stage->model->SetWeights(weights);
  const std::vector<Parameter>& whole = state_.held().whole();
  for (size_t i = 0; i < whole.size(); ++i) {
    if (!whole[i].trained) bias_parameters_.push_back(i);
  }
  const int64_t layers = static_cast<int64_t>(bias_parameters_.size());
  CHECK_EQ(layers, shape_.expert_layers());
  counts_ = arena.Allocate(Purpose::kData, "expert counts", DType::kI64, layers, shape_.experts);
  bias_max_ = arena.Allocate(Purpose::kData, "largest biases", DType::kF64, 1, layers);
  held_biases_.resize(layers, -1);
  for (int64_t i = 0; i < layers; ++i) {
    accumulators_.expert_counts.push_back(counts_.Rows(i, 1));
    host_counts_.emplace_back(shape_.experts);
    for (size_t h = 0; h < state_.held().held().size(); ++h) {
      if (state_.held().held()[h].table_index == static_cast<int>(bias_parameters_[i])) {
        held_biases_[i] = static_cast<int>(h);
      }
    }
  }
  host_all_counts_.resize(layers * shape_.experts);
  host_bias_.resize(shape_.experts);
  host_bias_max_.resize(layers);
}

// The validator has seen that the schedule can take the phase's batches.
void TrainStep::PrepareProgram(int64_t waves) {
  shares_.clear();
  for (int d = 0; d < links_.mesh.directions(); ++d) {
    shares_.push_back(
        MakeLaneShare(links_.mesh, links_.rank, Direction(d), largest_.lanes, ExpertLanes(largest_, shape_), waves));
  }
  for (size_t i = 0; i < rank_stages_.size(); ++i) {
    rank_stages_[i]->Start(shares_[rank_stages_[i]->direction.value]);
  }
  if (waves == program_waves_) return;
  absl::StatusOr<Program> program = BuildProgram(layout_, links_.mesh, shares_[0].micro_batches());
  CHECK(program.ok());
  executor_.reset();
  actions_ = program->positions[links_.position()];
  executed_.reserve(actions_.size());
  if (!stages_.empty()) executor_ = std::make_unique<Executor>(actions_, stages_);
  program_waves_ = waves;
}

// A program of fewer waves needs no more slots, so memory is taken once, for the largest step.
void TrainStep::AllocateStages(Arena& arena) {
  const SlotPlan plan = PlanSlots(actions_);
  for (const auto& stage : rank_stages_) {
    const int slots = plan.live.at(stage->id);
    const LaneShare& share = shares_[stage->direction.value];
    stage->model->Allocate(slots, PendingSlots(actions_, stage->id),
                           {.together = share.block, .lanes_per_sum = share.expert_lanes});
    BoundStage& bound = stages_[stage->id];
    bound.stage = stage.get();
    for (int i = 0; i < slots; ++i) bound.slots.push_back(AllocateBuffers(arena, stage->id, stage->direction));
    stage->evaluation = bound.slots[0];
  }
}

bool TrainStep::Holds(int stage, Direction direction) const {
  return stage >= 0 && stage < links_.mesh.stages() &&
         links_.mesh.StagePosition(StageId(stage), direction) == links_.position();
}

SlotBuffers TrainStep::AllocateBuffers(Arena& arena, StageId stage, Direction direction) const {
  const auto allocate = [&](Purpose purpose, const char* name) {
    return arena.Allocate(purpose, name, shape_.act, shape_.tokens(), shape_.hidden);
  };
  SlotBuffers buffers;
  if (stage.value > 0) {
    if (!Holds(stage.value - 1, direction)) buffers.input = allocate(Purpose::kActivations, "received activations");
    buffers.d_input = allocate(Purpose::kPending, "gradient of a stage's input");
  }
  if (stage.value + 1 < links_.mesh.stages()) {
    buffers.output = allocate(Purpose::kActivations, "output of a stage");
    if (!Holds(stage.value + 1, direction)) buffers.d_output = allocate(Purpose::kPending, "received gradient");
  }
  return buffers;
}

StepPlan TrainStep::Taken(const StepPlan& plan) const {
  return train_.reduction() == config::TrainConfig::FAST ? FastPlan(plan, links_.mesh) : plan;
}

SampleRuns TrainStep::Samples(const StepPlan& config_plan) const {
  const StepPlan plan = Taken(config_plan);
  SampleRuns samples;
  for (int d = 0; d < links_.mesh.directions(); ++d) {
    const IndexRange lanes = links_.mesh.LanesOf(links_.mesh.DataIndexOf(links_.rank), Direction(d), plan.lanes);
    const int64_t lane = plan.waves * plan.micro_batch;
    samples.runs[d] = {plan.first_sample + lanes.first * lane, lanes.count * lane};
  }
  return samples;
}

absl::Status TrainStep::ComputeGradients(const StepPlan& config_plan, const HostBatch& batch, StepResult& result) {
  const int64_t start = clock_.MonotonicNanos();
  const StepPlan plan = Taken(config_plan);
  PrepareProgram(plan.waves);
  result.plan = plan;
  result.times = StepTimes();
  const double tokens = static_cast<double>(plan.tokens);
  LossScales scales;
  scales.main = 1.0 / tokens;
  if (shape_.mtp_depth > 0) scales.mtp = plan.mtp_weight / (static_cast<double>(shape_.mtp_depth) * tokens);
  if (shape_.experts > 0) scales.balance = plan.balance_alpha / static_cast<double>(plan.sequences);
  accumulators_.waves_per_lane = plan.waves;
  for (const auto& stage : rank_stages_) stage->model->SetStep(scales, accumulators_);
  if (shape_.expert_layers() > 0) backend_.Zero(stream_, counts_);
  backend_.Zero(stream_, accumulators_.losses);
  device_batch_.Upload(backend_, stream_, batch);
  backend_.ResetWork();
  sum_.Start();
  if (trace_ != nullptr) trace_->BeginStep();
  for (const auto& stage : rank_stages_) stage->trace = trace_;
  executed_.clear();
  Context context(*this);
  RETURN_IF_ERROR(executor_->Run(context));
  RETURN_IF_ERROR(SumOverRanks());
  has_gradient_ = true;
  RETURN_IF_ERROR(ReadLosses(plan, result));
  ReadLoads(result);
  result.work = backend_.work();
  result.shares = trace_ != nullptr && trace_->dropped() == 0 ? trace_->Shares() : StepShares();
  int64_t forward_nanos = 0;
  for (const auto& stage : rank_stages_) forward_nanos += stage->forward_nanos;
  result.times.forward_s = static_cast<double>(forward_nanos) * 1e-9;
  const double elapsed_s = static_cast<double>(clock_.MonotonicNanos() - start) * 1e-9;
  result.times.backward_s = elapsed_s - result.times.forward_s;
  result.times.total_s = elapsed_s;
  return absl::OkStatus();
}

// Gradients in canonical order. Of losses and counts each has one rank that knows it, and zeros elsewhere.
absl::Status TrainStep::SumOverRanks() {
  RETURN_IF_ERROR(sum_.Reduce());
  RETURN_IF_ERROR(links_.world->AllReduce(stream_, accumulators_.losses, links_.Named("losses")));
  if (shape_.expert_layers() == 0) return absl::OkStatus();
  return links_.world->AllReduce(stream_, counts_, links_.Named("expert counts"));
}

// Micro-batches enter at the first stage of direction 0, whoever they would belong to in training.
absl::Status TrainStep::EvaluateMicroBatch(int64_t index, double& loss) {
  const MicroBatchTokens tokens = device_batch_.MicroBatch(index);
  const int last = links_.mesh.stages() - 1;
  View received;
  for (const auto& stage : rank_stages_) {
    if (stage->direction != Direction(0)) continue;
    const SlotBuffers& buffers = stage->evaluation;
    ConstView input = buffers.input;
    if (stage->id.value > 0 && Holds(stage->id.value - 1, Direction(0))) {
      input = received;
    } else if (stage->id.value > 0) {
      const int from = links_.mesh.StagePosition(StageId(stage->id.value - 1), Direction(0));
      RETURN_IF_ERROR(links_.forward->Receive(stream_, buffers.input, from, links_.Named("activations")));
    }
    stage->model->Evaluate(tokens, 0, input, buffers.output, token_loss_);
    RETURN_IF_ERROR(exchange_->status());
    received = buffers.output;
    if (stage->id.value == last) {
      backend_.CopyToHost(stream_, token_loss_, host_token_loss_.data());
      backend_.Synchronize(stream_);
      for (float token : host_token_loss_) loss += static_cast<double>(token);
    } else if (!Holds(stage->id.value + 1, Direction(0))) {
      const int to = links_.mesh.StagePosition(StageId(stage->id.value + 1), Direction(0));
      RETURN_IF_ERROR(links_.forward->Send(stream_, buffers.output, to, links_.Named("activations")));
    }
  }
  return absl::OkStatus();
}

absl::Status TrainStep::Evaluate(const HostBatch& batch, int64_t micro_batches, std::vector<double>& losses,
                                 int64_t& targets) {
  CHECK_EQ(batch.sequences, micro_batches * shape_.sequences);
  const int64_t all = micro_batches * links_.mesh.data_ranks();
  CHECK_LT(all, evaluated_.cols);
  device_batch_.Upload(backend_, stream_, batch);
  std::fill(host_evaluated_.begin(), host_evaluated_.end(), 0.0);
  double* const own = host_evaluated_.data() + micro_batches * links_.mesh.DataIndexOf(links_.rank);
  for (int64_t m = 0; m < micro_batches; ++m) RETURN_IF_ERROR(EvaluateMicroBatch(m, own[m]));
  if (Holds(links_.mesh.stages() - 1, Direction(0))) {
    host_evaluated_[all] = static_cast<double>(CountTargets(batch_shape_, batch));
  }
  const View sums = evaluated_.Columns(0, all + 1);
  backend_.CopyFromHost(stream_, host_evaluated_.data(), sums);
  RETURN_IF_ERROR(links_.world->AllReduce(stream_, sums, links_.Named("validation losses")));
  backend_.CopyToHost(stream_, sums, host_evaluated_.data());
  backend_.Synchronize(stream_);
  losses.assign(host_evaluated_.begin(), host_evaluated_.begin() + all);
  targets = static_cast<int64_t>(host_evaluated_[all]);
  return absl::OkStatus();
}

absl::StatusOr<bool> TrainStep::OnAnyRank(bool here) {
  double votes = here ? 1.0 : 0.0;
  const View sum = found_.Columns(0, 1);
  backend_.CopyFromHost(stream_, &votes, sum);
  RETURN_IF_ERROR(links_.world->AllReduce(stream_, sum, links_.Named("votes")));
  backend_.CopyToHost(stream_, sum, &votes);
  backend_.Synchronize(stream_);
  return votes > 0.0;
}

void TrainStep::MeasureEvaluation() {
  double loss = 0.0;
  CHECK(EvaluateMicroBatch(0, loss).ok());
}

StageModel& TrainStep::model() {
  CHECK_EQ(links_.mesh.world_size(), 1);
  return *rank_stages_[0]->model;
}

}  // namespace shoestring
