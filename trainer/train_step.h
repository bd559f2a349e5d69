// One optimizer step on a rank: program, gradient, checks, update; and what is known when it is done.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "configs/schema/parallel.pb.h"
#include "configs/schema/run.pb.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/expert_exchange.h"
#include "parallel/pipeline/execute.h"
#include "trainer/batch.h"
#include "trainer/gradient_sum.h"
#include "trainer/lanes.h"
#include "trainer/model/model.h"
#include "trainer/optimizer.h"
#include "trainer/rank_links.h"
#include "trainer/schedule.h"
#include "trainer/trace.h"
#include "trainer/train_state.h"

namespace shoestring {

struct StepTimes {
  double total_s = 0;
  double data_wait_s = 0;  // for the batch, before anything is computed
  double forward_s = 0;
  double backward_s = 0;   // gradients of inputs and of weights, lanes folded
  double optimizer_s = 0;  // norm, checks, update, average, routing biases
};

struct StepResult {
  StepPlan plan;                                    // sizes, learning rate, bias speed, MTP weight of the step
  RunPosition position;                             // after the step
  double loss = 0;                                  // cross-entropy of the main model, nats a token of the global batch
  double loss_mtp = 0;                              // mean over MTP modules, nats a token, not weighted
  double loss_balance = 0;                          // as it enters the gradient
  double grad_norm = 0;                             // before clipping
  double grad_scale = 1;                            // by clipping
  std::vector<int> moe_layers;                      // layer number of each entry below; MTP module k is layers + k
  std::vector<double> max_over_mean_load;           // of the step's global batch
  std::vector<std::vector<int64_t>> expert_counts;  // of each of those layers: tokens that chose each expert
  double mean_max_over_mean_load = 0;               // over those layers; 0 without experts
  double bias_abs_max = 0;                          // largest routing bias after the step
  WorkCounters work;                                // of forward and backward
  StepShares shares;                                // where the time went, if the step was recorded; else zeros
  StepTimes times;

  double total_loss() const { return loss + plan.mtp_weight * loss_mtp + loss_balance; }
};

// Everything that one phase needs besides the state: the rank's stages, accumulators, buffers, program. Lives in the
// arena; made anew for each phase in an ArenaScope that its owner opens. Ranks of a world make the same calls in the
// same order; what a call returns is the same on all of them, but for their own work, times and failures.
class TrainStep {
 public:
  // `config` is one that CheckSupported accepts. References must outlive this object.
  TrainStep(const config::RunConfig& config, const Schedule& schedule, int phase, TrainState& state, Backend& backend,
            Stream& stream, Arena& arena, Clock& clock, const RankLinks& links);
  ~TrainStep();

  // What this rank's batches look like in this phase, and which samples they are.
  const BatchShape& batch_shape() const { return batch_shape_; }
  SampleRuns Samples(const StepPlan& plan) const;

  // Gradients of the whole step in canonical order, into accumulators of this object; changes no state. `batch` holds
  // Samples(plan). The times of `result` are set except data_wait_s, and losses, loads and work. FAILED_PRECONDITION
  // that IsStopOnPurpose for a loss that is not finite; a communicator's errors.
  absl::Status ComputeGradients(const StepPlan& plan, const HostBatch& batch, StepResult& result);
  // The gradient of the last ComputeGradients; for tests that look at it or spoil it.
  const Gradient& gradients() const { return sum_.gradient(); }
  // Norm and checks, then parameters, averages, routing biases and position. After an error nothing has changed:
  // FAILED_PRECONDITION that IsStopOnPurpose and names the tensor when a gradient is not finite.
  absl::Status Update(const StepPlan& plan, StepResult& result);

  // Forward only: the main model's sum of token losses of `micro_batches` micro-batches a data rank, `batch` being this
  // rank's, into `losses` in the order of data ranks, then micro-batches; and the targets of all of them.
  absl::Status Evaluate(const HostBatch& batch, int64_t micro_batches, std::vector<double>& losses, int64_t& targets);
  // Sequences of a micro-batch; data ranks.
  int64_t micro_batch() const { return shape_.sequences; }
  const RankLinks& links() const { return links_; }

  // Whether it is so on any rank; every rank asks.
  absl::StatusOr<bool> OnAnyRank(bool here);

  // Recorded from the next step on; null: nothing. `trace` outlives this object or its own removal.
  void SetTrace(StepTrace* trace) { trace_ = trace; }

  // What Evaluate does to one micro-batch, for an arena that measures.
  void MeasureEvaluation();

  // Of a rank that holds the whole model.
  StageModel& model();
  // The actions of this rank in the step that was taken last: its program, and those that have ended, in that order.
  const std::vector<Action>& actions() const { return actions_; }
  const std::vector<Action>& executed() const { return executed_; }

 private:
  class RankStage;
  class Context;
  friend class Context;

  // As this layout takes it: see FastPlan.
  StepPlan Taken(const StepPlan& plan) const;
  void MakeStages(const config::RunConfig& config, Arena& arena);
  void BindState(Arena& arena);
  void PrepareProgram(int64_t waves);
  void AllocateStages(Arena& arena);
  SlotBuffers AllocateBuffers(Arena& arena, StageId stage, Direction direction) const;
  bool Holds(int stage, Direction direction) const;
  absl::Status SumOverRanks();
  absl::Status EvaluateMicroBatch(int64_t index, double& loss);
  absl::Status ReadLosses(const StepPlan& plan, StepResult& result);
  void ReadLoads(StepResult& result);
  absl::Status UpdateBiases(const StepPlan& plan, StepResult& result);

  const config::TrainConfig train_;
  const Schedule& schedule_;
  TrainState& state_;
  Backend& backend_;
  Stream& stream_;
  Clock& clock_;
  const RankLinks& links_;
  const config::LayoutConfig layout_;
  const ModelShape shape_;
  const StepPlan largest_;
  const BatchShape batch_shape_;
  const std::unique_ptr<ExpertExchange> exchange_;
  DeviceBatch device_batch_;
  GradientSum sum_;
  GradientNorm norm_;
  std::vector<std::unique_ptr<RankStage>> rank_stages_;  // in the order of HeldTable::stages
  StepAccumulators accumulators_;
  View counts_;      // [layers with experts, E] i64
  View token_loss_;  // [1, T] f32, for evaluation
  View evaluated_;   // [1, n] f64: losses and targets of evaluated micro-batches, of all ranks
  View bias_max_;    // [1, layers with experts] f64
  View found_;       // [1, 2] f64

  StepTrace* trace_ = nullptr;

  std::vector<LaneShare> shares_;  // of each direction, for the step under way
  std::map<StageId, BoundStage> stages_;
  std::vector<Action> actions_;
  std::vector<Action> executed_;
  std::unique_ptr<Executor> executor_;
  int64_t program_waves_ = 0;
  bool has_gradient_ = false;

  std::vector<size_t> bias_parameters_;  // of the whole table, in order
  std::vector<int> held_biases_;         // of the rank's table: where each of them is; -1: not here
  // Host copies, sized once.
  std::vector<std::vector<int64_t>> host_counts_;
  std::vector<int64_t> host_all_counts_;
  std::vector<float> host_bias_;
  std::vector<double> host_bias_max_;
  std::vector<double> host_losses_;
  std::vector<double> loss_column_;
  std::vector<float> host_token_loss_;
  std::vector<double> host_evaluated_;
};

}  // namespace shoestring
