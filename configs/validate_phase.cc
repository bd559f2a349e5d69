// Rules of one phase: length, batch, learning rate, context, lanes.
#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "configs/validate_rules.h"

namespace shoestring::config {
namespace {

// Tokens of one micro-batch are counted in 32 bits.
constexpr int64_t kMaxMicroBatchTokens = std::numeric_limits<int32_t>::max();

// Every action of a step's program is kept; V3 has at most 15,360 sequences in a step.
constexpr int64_t kMaxMicroBatches = int64_t{1} << 20;

// The least and the most tokens that may be consumed when a point of the phase is reached: steps have different sizes
// while the batch grows.
struct TokenRange {
  double low = 0;
  double high = 0;
};

struct PhaseSize {
  double min_step_tokens = 0;
  double max_step_tokens = 0;

  TokenRange OfSteps(int64_t steps) const { return {steps * min_step_tokens, steps * max_step_tokens}; }
  static TokenRange OfTokens(int64_t tokens) { return {static_cast<double>(tokens), static_cast<double>(tokens)}; }
};

PhaseSize SizeOf(const Phase& phase) {
  const BatchSchedule& batch = phase.batch();
  const int64_t from = batch.has_ramp() ? batch.ramp().from_sequences() : batch.sequences();
  const int64_t to = batch.has_ramp() ? batch.ramp().to_sequences() : batch.sequences();
  const double length = phase.sequence_length();
  return {length * std::min(from, to), length * std::max(from, to)};
}

void ValidateBatch(const PhaseSettings& settings, const std::string& path, Findings& findings) {
  const Phase& phase = *settings.phase;
  const int64_t unit = settings.lanes * phase.micro_batch();
  const auto whole = [&](const char* name, int64_t sequences) {
    findings.AddUnless(Divides(unit, sequences), absl::StrCat(path, ".batch.", name),
                       absl::StrCat(sequences, " sequences are not a multiple of lanes * micro_batch = ",
                                    settings.lanes, " * ", phase.micro_batch()),
                       absl::StrCat("nearest: ", std::max<int64_t>(unit > 0 ? sequences / unit * unit : 0, unit)));
    const int64_t micro_batches = sequences / std::max(phase.micro_batch(), 1);
    findings.AddUnless(micro_batches <= kMaxMicroBatches, absl::StrCat(path, ".batch.", name),
                       absl::StrCat("a step has ", micro_batches, " micro-batches"),
                       absl::StrCat("at most ", kMaxMicroBatches, "; take a larger micro_batch, or fewer sequences"));
  };
  const int64_t tokens = int64_t{phase.sequence_length()} * phase.micro_batch();
  findings.AddUnless(tokens <= kMaxMicroBatchTokens, absl::StrCat(path, ".micro_batch"),
                     absl::StrCat("a micro-batch has ", tokens, " tokens"),
                     absl::StrCat("at most ", kMaxMicroBatchTokens));
  if (!phase.has_batch()) return;
  switch (phase.batch().shape_case()) {
    case BatchSchedule::kSequences: whole("sequences", phase.batch().sequences()); return;
    case BatchSchedule::kRamp: {
      const BatchRamp& ramp = phase.batch().ramp();
      whole("ramp.from_sequences", ramp.from_sequences());
      whole("ramp.to_sequences", ramp.to_sequences());
      findings.AddUnless(!phase.has_tokens() || ramp.over_tokens() <= phase.tokens(),
                         absl::StrCat(path, ".batch.ramp.over_tokens"),
                         absl::StrCat("the ramp lasts ", ramp.over_tokens(), " tokens, the phase ", phase.tokens()),
                         "end the ramp inside the phase");
      return;
    }
    case BatchSchedule::SHAPE_NOT_SET:
      findings.Add(absl::StrCat(path, ".batch"), "has no shape", "say sequences or ramp");
  }
}

void ValidateContext(const RunConfig& config, const PhaseSettings& settings, const std::string& path,
                     Findings& findings) {
  const Phase& phase = *settings.phase;
  const int64_t length = phase.sequence_length();
  const std::string field = absl::StrCat(path, ".sequence_length");
  if (phase.has_yarn()) ValidateYarn(phase.yarn(), absl::StrCat(path, ".yarn"), findings);
  findings.AddUnless(
      length <= 0 || length > config.model().mtp_depth(), field,
      absl::StrCat("a sequence of ", length, " is not longer than mtp_depth ", config.model().mtp_depth()),
      "MTP modules look so many tokens ahead");
  if (settings.yarn != nullptr) {
    const double reach = settings.yarn->factor() * settings.yarn->original_length();
    findings.AddUnless(reach <= 0 || static_cast<double>(length) <= reach, field,
                       absl::StrCat(length, " is beyond yarn's factor * original_length = ", reach),
                       "raise yarn's factor");
    return;
  }
  const int64_t trained = config.train().phase(0).sequence_length();
  findings.AddUnless(trained <= 0 || length <= trained, field,
                     absl::StrCat(length, " is longer than the ", trained, " of the first phase, without yarn"),
                     "say yarn in this phase (with factor: 1 for plain RoPE)");
}

void ValidateShape(const Segment& segment, bool first, const std::string& path, Findings& findings) {
  const Segment::ShapeCase shape = segment.shape_case();
  findings.AddUnless(shape != Segment::SHAPE_NOT_SET, path, "has no shape", "say constant, linear, cosine or factor");
  findings.AddUnless(shape != Segment::kFactor || !first, absl::StrCat(path, ".factor"), "has no previous segment",
                     "begin with constant, linear or cosine");
  const bool sloped = shape == Segment::kLinear || shape == Segment::kCosine;
  findings.AddUnless(!sloped || segment.end_case() != Segment::END_NOT_SET, path, "a slope without an end",
                     "say until_step or until_tokens");
}

TokenRange EndOf(const Segment& segment, const PhaseSize& size) {
  return segment.has_until_step() ? size.OfSteps(segment.until_step()) : PhaseSize::OfTokens(segment.until_tokens());
}

// Whether the segment ends exactly where the phase does, said in the same unit.
bool EndsWithPhase(const Segment& segment, const Phase& phase) {
  return (phase.has_steps() && segment.until_step() == phase.steps()) ||
         (phase.has_tokens() && segment.until_tokens() == phase.tokens());
}

void ValidateLearningRate(const Phase& phase, const std::string& phase_path, Findings& findings) {
  const PhaseSize size = SizeOf(phase);
  const TokenRange phase_end = phase.has_steps() ? size.OfSteps(phase.steps()) : PhaseSize::OfTokens(phase.tokens());
  TokenRange previous;
  for (int i = 0; i < phase.learning_rate_size(); ++i) {
    const Segment& segment = phase.learning_rate(i);
    const std::string path = absl::StrCat(phase_path, ".learning_rate[", i, "]");
    const bool last = i + 1 == phase.learning_rate_size();
    ValidateShape(segment, i == 0, path, findings);
    if (segment.end_case() == Segment::END_NOT_SET) {
      findings.AddUnless(last, path, "has no end and is not the last segment", "say until_step or until_tokens");
      continue;
    }
    const TokenRange end = EndOf(segment, size);
    findings.AddUnless(end.high > previous.low || end.high <= 0, path, "ends before it begins",
                       "segments are in order, their ends counted from the start of the phase");
    findings.AddUnless(end.low <= phase_end.high || phase_end.high <= 0, path, "ends after the phase",
                       "ends are counted from the start of the phase");
    findings.AddUnless(!last || EndsWithPhase(segment, phase), path, "may end before the phase does",
                       "add a last segment without an end, or end with the phase, in its unit");
    previous = end;
  }
}

}  // namespace

void ValidatePhase(const RunConfig& config, int index, Findings& findings) {
  const PhaseSettings settings = ResolvePhase(config, index);
  const Phase& phase = *settings.phase;
  const std::string path = PhasePath(index);
  findings.AddUnless(phase.duration_case() != Phase::DURATION_NOT_SET, path, "has no duration", "say tokens or steps");
  const std::string lanes_path = phase.has_expert_lanes() ? absl::StrCat(path, ".expert_lanes") : "train.expert_lanes";
  findings.AddUnless(Divides(settings.expert_lanes, settings.lanes), lanes_path,
                     absl::StrCat(settings.expert_lanes, " does not divide ", settings.lanes, " lanes"),
                     "expert groups are equal runs of lanes");
  ValidateBatch(settings, path, findings);
  ValidateContext(config, settings, path, findings);
  ValidateLearningRate(phase, path, findings);
  ValidateLayout(config, settings, phase.has_layout() ? absl::StrCat(path, ".layout") : "layout", path, findings);
}

}  // namespace shoestring::config
