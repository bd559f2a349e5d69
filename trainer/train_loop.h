// The training loop: phases, steps, validation, and observers that see what happens without the loop knowing them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "configs/schema/run.pb.h"
#include "data/token_source.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"
#include "trainer/held.h"
#include "trainer/memory_block.h"
#include "trainer/rank_links.h"
#include "trainer/train_step.h"
#include "trainer/validation.h"

namespace shoestring {

// The data of a run. A phase has its own source, because its sequences have their own length; sample indices count
// from the start of the phase.
struct TrainData {
  std::function<absl::StatusOr<std::unique_ptr<TokenSource>>(int phase)> training;
  // Unshuffled; empty: no validation.
  std::function<absl::StatusOr<std::unique_ptr<TokenSource>>(int phase)> validation;
  int64_t validation_samples = 0;         // of the shard, all told; never more are used. 0: unknown
  double validation_bytes_per_token = 0;  // of the shard's text; 0: unknown
};

enum class StopReason {
  kFinished,   // every phase is over
  kRequested,  // the stop flag was raised: saved, please restart
  kStepLimit,  // TrainOptions::max_steps
};

struct TrainOptions {
  int threads = 1;                          // of initialisation
  int64_t max_steps = 0;                    // stop when so many steps are done in the whole run; 0: no limit
  const std::atomic<bool>* stop = nullptr;  // looked at after each step; raised by a signal handler
  bool prefetch = true;                     // batches, on a thread of their own
  int64_t validated_step = -1;              // whose validation is known already and not repeated; -1: none
};

// Called by the loop, on its thread, in the order of the list. A failed status ends the run with that status.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual absl::Status OnStart(const TrainState&) { return absl::OkStatus(); }
  virtual absl::Status OnStep(const StepResult&) { return absl::OkStatus(); }
  virtual absl::Status OnValidation(const ValidationResult&) { return absl::OkStatus(); }
  // After OnStep and OnValidation of a step that checkpoint.interval_steps divides, and once at the end of the run or
  // on request unless that step was saved already. `state` is complete: writing and reading it restores the run.
  virtual absl::Status OnCheckpointDue(const TrainState&) { return absl::OkStatus(); }
  // When all observers have done so.
  virtual void OnCheckpointSaved() {}
  virtual void OnEnd(const absl::Status&, std::optional<StopReason>) {}
};

class Trainer {
 public:
  // Measures the memory of the whole run, takes it, allocates the state and initialises it (position 0).
  // INVALID_ARGUMENT when this build cannot run `config` (CheckSupported); RESOURCE_EXHAUSTED when there is not enough
  // memory. `config` is copied; backend, clock and what `options` points to must outlive the trainer. `links`: of one
  // rank of the config's world, all of which create a trainer and make the same calls; absent: a world of one.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(const config::RunConfig& config, TrainData data,
                                                         Backend& backend, Clock& clock, const TrainOptions& options,
                                                         std::optional<RankLinks> links = std::nullopt);
  ~Trainer();

  // Observers outlive the trainer.
  void AddObserver(TrainObserver& observer) { observers_.push_back(&observer); }

  // The state, to be filled from a checkpoint before the first step; then call RefreshCompute. Run takes a state that
  // is not at position 0 as saved already.
  TrainState& state() { return *state_; }
  const Schedule& schedule() const { return schedule_; }
  // This rank's own.
  const std::vector<Parameter>& table() const { return held_.parameters(); }
  const HeldTable& held() const { return held_; }
  const RankLinks& links() const { return links_; }
  Backend& backend() { return backend_; }
  // Records every step from the next one on; null: nothing. `trace` outlives the trainer or its own removal.
  void SetTrace(StepTrace* trace) { trace_ = trace; }
  Stream& stream() { return *stream_; }
  // After the state was filled.
  absl::Status RefreshCompute() { return state_->RefreshCompute(backend_, *stream_, links_); }
  // Of the arena, by purpose: what was measured, and is all that is taken.
  const std::string& memory_table() const { return memory_table_; }
  int64_t arena_bytes() const { return memory_.size_bytes(); }
  int64_t arena_high_water_bytes() const { return arena_.high_water_bytes(); }
  int64_t arena_high_water_bytes(Purpose purpose) const { return arena_.high_water_bytes(purpose); }

  // Everything until the run is over or stopped.
  absl::StatusOr<StopReason> Run();

  // One step, without observers; the schedule must not be done. The result is valid until the next call. After the
  // first step of a phase this allocates nothing.
  absl::StatusOr<const StepResult*> Step();
  // Empty when the run has no validation.
  absl::StatusOr<std::optional<ValidationResult>> RunValidation();
  // The step of the phase under way; opens the phase's memory and data if need be. For tests and for generation.
  absl::StatusOr<TrainStep*> CurrentStep();

 private:
  struct PhaseRun;  // what lives as long as a phase

  Trainer(const config::RunConfig& config, TrainData data, Backend& backend, Clock& clock, const TrainOptions& options,
          RankLinks links, MemoryBlock memory, std::string memory_table);
  absl::Status EnterPhase(int phase);
  absl::StatusOr<const HostBatch*> TakeBatch(const StepPlan& plan);
  absl::StatusOr<StopReason> RunSteps();
  absl::Status AfterStep(const StepResult& result);
  absl::Status ValidateUnlessDone();
  absl::Status SaveUnlessSaved();
  absl::Status Notify(absl::FunctionRef<absl::Status(TrainObserver&)> call);
  // The same on all ranks.
  absl::StatusOr<std::optional<StopReason>> ReasonToStop();

  const config::RunConfig config_;
  const TrainData data_;
  Backend& backend_;
  Clock& clock_;
  const TrainOptions options_;
  const RankLinks links_;
  const Schedule schedule_;
  const HeldTable held_;
  MemoryBlock memory_;
  const std::string memory_table_;
  Arena arena_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<TrainState> state_;
  std::unique_ptr<PhaseRun> phase_;
  std::vector<TrainObserver*> observers_;
  StepTrace* trace_ = nullptr;
  StepResult result_;
  int64_t saved_step_ = -1;
  int64_t validated_step_ = options_.validated_step;
};

// Bytes of the arena for a run, and its table by purpose: every phase's largest step is run on a backend that computes
// nothing, in an arena without memory.
struct MemoryNeed {
  int64_t bytes = 0;
  std::string table;
};
MemoryNeed MeasureMemory(const config::RunConfig& config, const Backend& backend, Rank rank = Rank(0));

}  // namespace shoestring
