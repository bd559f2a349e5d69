// Schedules: which segment a step belongs to, how far it has come, where phases end.
#include "trainer/schedule.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "configs/resolve.h"

namespace shoestring {
namespace {

constexpr double kPi = 3.14159265358979323846;

// Learning rate at the end of segment `index`: what the factor of the next one multiplies.
double EndValue(const config::Phase& phase, int index) {
  const config::Segment& segment = phase.learning_rate(index);
  switch (segment.shape_case()) {
    case config::Segment::kConstant: return segment.constant();
    case config::Segment::kLinear: return segment.linear().to();
    case config::Segment::kCosine: return segment.cosine().to();
    case config::Segment::kFactor: return index == 0 ? 0.0 : EndValue(phase, index - 1) * segment.factor();
    case config::Segment::SHAPE_NOT_SET: return 0.0;
  }
  return 0.0;
}

bool BeginsBefore(const config::Segment& segment, const RunPosition& position) {
  switch (segment.end_case()) {
    case config::Segment::kUntilStep: return position.phase_step < segment.until_step();
    case config::Segment::kUntilTokens: return position.phase_tokens < segment.until_tokens();
    case config::Segment::END_NOT_SET: return true;
  }
  return true;
}

int SegmentOf(const config::Phase& phase, const RunPosition& position) {
  for (int i = 0; i < phase.learning_rate_size(); ++i) {
    if (BeginsBefore(phase.learning_rate(i), position)) return i;
  }
  return phase.learning_rate_size() - 1;
}

bool Reached(const config::Phase& phase, int64_t steps, int64_t tokens) {
  return phase.has_steps() ? steps >= phase.steps() : tokens >= phase.tokens();
}

// Tokens of the phase after which its steps are all of one size.
int64_t RampTokens(const config::Phase& phase) {
  return phase.batch().has_ramp() ? phase.batch().ramp().over_tokens() : 0;
}

}  // namespace

RunPosition FindInPhase(const config::RunConfig& config, int phase_index, int64_t until_step, int64_t until_tokens) {
  const config::PhaseSettings settings = config::ResolvePhase(config, phase_index);
  const int64_t length = settings.phase->sequence_length();
  RunPosition at;
  at.phase = phase_index;
  const auto there = [&] {
    return (until_step >= 0 && at.phase_step >= until_step) || (until_tokens >= 0 && at.phase_tokens >= until_tokens);
  };
  while (!there() && at.phase_tokens < RampTokens(*settings.phase)) {
    const int64_t sequences = config::BatchSequences(settings, at.phase_tokens);
    at.phase_step += 1;
    at.phase_sequences += sequences;
    at.phase_tokens += sequences * length;
  }
  if (there()) return at;
  const int64_t sequences = config::BatchSequences(settings, at.phase_tokens);
  const int64_t step_tokens = sequences * length;
  int64_t steps = until_step >= 0 ? until_step - at.phase_step : -1;
  if (until_tokens >= 0) {
    const int64_t by_tokens = (until_tokens - at.phase_tokens + step_tokens - 1) / step_tokens;
    steps = steps < 0 ? by_tokens : std::min(steps, by_tokens);
  }
  CHECK_GE(steps, 0);
  at.phase_step += steps;
  at.phase_sequences += steps * sequences;
  at.phase_tokens += steps * step_tokens;
  return at;
}

Schedule::Schedule(const config::RunConfig& config) : config_(std::make_shared<const config::RunConfig>(config)) {
  for (int p = 0; p < config.train().phase_size(); ++p) {
    settings_.push_back(config::ResolvePhase(*config_, p));
    std::vector<Start>& starts = starts_.emplace_back();
    for (int s = 0; s < config.train().phase(p).learning_rate_size(); ++s) starts.push_back(StartOf(p, s));
  }
}

// A segment begins where the one before it ends, exactly, in the unit of that end; in the other unit, with the first
// step that belongs to it.
Schedule::Start Schedule::StartOf(int phase, int segment) const {
  if (segment == 0) return {};
  const config::Segment& before = config_->train().phase(phase).learning_rate(segment - 1);
  const RunPosition at = FindInPhase(*config_, phase, before.has_until_step() ? before.until_step() : -1,
                                     before.has_until_tokens() ? before.until_tokens() : -1);
  Start start{static_cast<double>(at.phase_step), static_cast<double>(at.phase_tokens)};
  if (before.has_until_tokens()) start.tokens = static_cast<double>(before.until_tokens());
  return start;
}

StepPlan Schedule::PlanSizes(int phase_index, int64_t phase_tokens) const {
  const config::PhaseSettings& settings = settings_[phase_index];
  StepPlan plan;
  plan.phase = phase_index;
  plan.sequences = config::BatchSequences(settings, phase_tokens);
  plan.sequence_length = settings.phase->sequence_length();
  plan.micro_batch = settings.phase->micro_batch();
  plan.lanes = settings.lanes;
  plan.expert_lanes = settings.expert_lanes;
  plan.waves = plan.sequences / (plan.lanes * plan.micro_batch);
  plan.tokens = plan.sequences * plan.sequence_length;
  plan.balance_alpha = config_->train().balance_alpha();
  return plan;
}

StepPlan Schedule::PlanStep(const RunPosition& position) const {
  CHECK(!Done(position));
  StepPlan plan = PlanSizes(position.phase, position.phase_tokens);
  plan.first_sample = position.phase_sequences;
  plan.learning_rate = LearningRate(position, plan);
  plan.bias_speed = config::ValueAtTokens(config_->train().bias_speed(), position.tokens);
  plan.mtp_weight = config::ValueAtTokens(config_->train().mtp_weight(), position.tokens);
  return plan;
}

double Schedule::LearningRate(const RunPosition& position, const StepPlan& plan) const {
  const config::Phase& phase = config_->train().phase(position.phase);
  const int index = SegmentOf(phase, position);
  const config::Segment& segment = phase.learning_rate(index);
  if (!segment.has_linear() && !segment.has_cosine()) return EndValue(phase, index);
  const Start start = starts_[position.phase][index];
  const bool by_steps = segment.has_until_step();
  const double begin = by_steps ? start.step : start.tokens;
  const double end = static_cast<double>(by_steps ? segment.until_step() : segment.until_tokens());
  const double now = static_cast<double>(by_steps ? position.phase_step + 1 : position.phase_tokens + plan.tokens);
  const double progress = end > begin ? std::clamp((now - begin) / (end - begin), 0.0, 1.0) : 1.0;
  const config::Slope& slope = segment.has_linear() ? segment.linear() : segment.cosine();
  if (progress == 1.0) return slope.to();
  if (segment.has_linear()) return slope.from() + (slope.to() - slope.from()) * progress;
  return slope.to() + (slope.from() - slope.to()) * (1.0 + std::cos(kPi * progress)) / 2.0;
}

RunPosition Schedule::Advance(RunPosition position, const StepPlan& plan) const {
  position.step += 1;
  position.tokens += plan.tokens;
  position.phase_step += 1;
  position.phase_tokens += plan.tokens;
  position.phase_sequences += plan.sequences;
  if (Reached(config_->train().phase(position.phase), position.phase_step, position.phase_tokens)) {
    position.phase += 1;
    position.phase_step = position.phase_tokens = position.phase_sequences = 0;
  }
  return position;
}

// A ramp may go down, so its end is not always its largest step.
StepPlan Schedule::LargestStep(int phase) const {
  const StepPlan first = PlanSizes(phase, 0);
  const StepPlan last = PlanSizes(phase, RampTokens(config_->train().phase(phase)));
  return first.sequences > last.sequences ? first : last;
}

int64_t Schedule::TotalSteps() const {
  int64_t steps = 0;
  for (int p = 0; p < phases(); ++p) {
    const config::Phase& phase = config_->train().phase(p);
    steps += FindInPhase(*config_, p, phase.has_steps() ? phase.steps() : -1, phase.has_tokens() ? phase.tokens() : -1)
                 .phase_step;
  }
  return steps;
}

double EmaDecay(const config::EmaConfig& ema, int64_t step_tokens) {
  if (ema.has_decay()) return ema.decay();
  return std::pow(0.5, static_cast<double>(step_tokens) / ema.half_life_tokens());
}

}  // namespace shoestring
