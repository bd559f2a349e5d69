// One optimizer step on one rank: program, gradient, checks, update; and what is known when it is done.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "configs/schema/run.pb.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/expert_exchange.h"
#include "parallel/pipeline/execute.h"
#include "trainer/accumulate.h"
#include "trainer/batch.h"
#include "trainer/model/model.h"
#include "trainer/optimizer.h"
#include "trainer/schedule.h"
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
  StepTimes times;

  double total_loss() const { return loss + plan.mtp_weight * loss_mtp + loss_balance; }
};

// Everything that one phase needs besides the state: model, accumulators, buffers, program. Lives in the arena; made
// anew for each phase in an ArenaScope that its owner opens.
class TrainStep {
 public:
  // `config` is one that CheckSupported accepts. References must outlive this object.
  TrainStep(const config::RunConfig& config, const Schedule& schedule, int phase, TrainState& state, Backend& backend,
            Stream& stream, Arena& arena, Clock& clock);
  ~TrainStep();

  // What batches look like in this phase.
  const BatchShape& batch_shape() const { return batch_shape_; }

  // Gradients of the whole step in canonical order, into accumulators of this object; changes no state. The times of
  // `result` are set except data_wait_s, and losses, loads and work. FAILED_PRECONDITION that IsStopOnPurpose for a
  // loss that is not finite.
  absl::Status ComputeGradients(const StepPlan& plan, const HostBatch& batch, StepResult& result);
  // The gradient of the last ComputeGradients; for tests that look at it or spoil it.
  const GradientSet& gradients() const { return *gradients_; }
  // Norm and checks, then parameters, averages, routing biases and position. After an error nothing has changed:
  // FAILED_PRECONDITION that IsStopOnPurpose and names the tensor when a gradient is not finite.
  absl::Status Update(const StepPlan& plan, StepResult& result);

  // Forward only: adds the main model's token losses of `batch` (whole micro-batches) and its number of targets.
  void Evaluate(const HostBatch& batch, double& loss_sum, int64_t& targets);

  // What Evaluate does to one micro-batch, for an arena that measures.
  void MeasureEvaluation();

  StageModel& model() { return model_; }

 private:
  class LaneStage;
  class Context;
  friend class Context;

  void BindState(Arena& arena);
  void PrepareProgram(int64_t micro_batches);
  absl::Status ReadLosses(const StepPlan& plan, StepResult& result);
  void ReadLoads(StepResult& result);
  void UpdateBiases(const StepPlan& plan, StepResult& result);

  const config::TrainConfig train_;
  const Schedule& schedule_;
  TrainState& state_;
  Backend& backend_;
  Stream& stream_;
  Clock& clock_;
  const ModelShape shape_;
  const StepPlan largest_;
  const BatchShape batch_shape_;
  const std::unique_ptr<ExpertExchange> exchange_;
  DeviceBatch device_batch_;
  GradientSum sum_;
  GradientNorm norm_;
  StageModel model_;
  const std::unique_ptr<LaneStage> lane_stage_;
  StepAccumulators accumulators_;
  View token_loss_;  // [1, T] f32, for evaluation

  std::map<StageId, BoundStage> stages_;
  std::vector<Action> actions_;
  std::unique_ptr<Executor> executor_;
  int64_t program_micro_batches_ = 0;
  const GradientSet* gradients_ = nullptr;

  std::vector<size_t> bias_parameters_;  // of the table, in order
  // Host copies, sized once.
  std::vector<std::vector<int64_t>> host_counts_;
  std::vector<float> host_bias_;
  std::vector<double> host_losses_;
  std::vector<double> loss_column_;
  std::vector<float> host_token_loss_;
};

}  // namespace shoestring
