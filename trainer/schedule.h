// What each optimizer step is: batch, learning rate, bias speed and MTP weight as functions of the position in the run
// (V3 report, section 4.2). All counted in integers, so that a resumed run takes the same steps.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "configs/resolve.h"
#include "configs/schema/run.pb.h"

namespace shoestring {

// How far a run has come; the whole state of every schedule, and of the data: sample indices count from the start of
// the phase.
struct RunPosition {
  int64_t step = 0;        // optimizer steps done
  int64_t tokens = 0;      // consumed by them
  int phase = 0;           // of the next step; the number of phases when the run is over
  int64_t phase_step = 0;  // the same three counted from the start of the phase
  int64_t phase_tokens = 0;
  int64_t phase_sequences = 0;
  friend bool operator==(const RunPosition&, const RunPosition&) = default;
};

// One step, before it is taken.
struct StepPlan {
  int phase = 0;
  int64_t first_sample = 0;     // of the phase; the step takes the next `sequences` ones
  int64_t sequences = 0;        // of the global batch: lanes * waves * micro_batch
  int64_t sequence_length = 0;  // S
  int64_t micro_batch = 0;      // sequences of one forward pass
  int64_t lanes = 0;            // L
  int64_t expert_lanes = 0;     // G
  int64_t waves = 0;            // micro-batches of one lane
  int64_t tokens = 0;           // sequences * S
  double learning_rate = 0;
  double bias_speed = 0;
  double mtp_weight = 0;  // lambda
  double balance_alpha = 0;

  int64_t micro_batches() const { return lanes * waves; }
};

// Keeps a copy of a config that the validator found right. Planning allocates nothing.
class Schedule {
 public:
  explicit Schedule(const config::RunConfig& config);

  int phases() const { return static_cast<int>(settings_.size()); }
  // Settings in force in a phase; valid as long as any copy of this schedule lives.
  const config::PhaseSettings& settings(int phase) const { return settings_[phase]; }
  bool Done(const RunPosition& position) const { return position.phase >= phases(); }
  // The step that begins at `position`, which must not be Done.
  StepPlan PlanStep(const RunPosition& position) const;
  // The position after that step; a phase ends with the first step that reaches its duration.
  RunPosition Advance(RunPosition position, const StepPlan& plan) const;

  // The plan of a phase's largest step: what memory must hold.
  StepPlan LargestStep(int phase) const;
  // Steps of the whole run.
  int64_t TotalSteps() const;

 private:
  // The point of a phase where a segment begins, in both units.
  struct Start {
    double step = 0;
    double tokens = 0;
  };

  StepPlan PlanSizes(int phase, int64_t phase_tokens) const;
  Start StartOf(int phase, int segment) const;
  double LearningRate(const RunPosition& position, const StepPlan& plan) const;

  std::shared_ptr<const config::RunConfig> config_;  // what settings_ points into
  std::vector<config::PhaseSettings> settings_;      // of each phase
  std::vector<std::vector<Start>> starts_;           // of each phase's segments
};

// Steps of a phase are of one size after its ramp, so that points far away are reached without walking there: the
// position inside `phase` of the first step that begins at or after `until_step` steps or `until_tokens` tokens of the
// phase (a negative one does not count).
RunPosition FindInPhase(const config::RunConfig& config, int phase, int64_t until_step, int64_t until_tokens);

// Decay of the moving average of weights for a step of so many tokens; 0 <= decay < 1.
double EmaDecay(const config::EmaConfig& ema, int64_t step_tokens);

}  // namespace shoestring
