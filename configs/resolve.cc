// Bodies of the rules by which one part of a config overrides another.
#include "configs/resolve.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "configs/walk.h"

namespace shoestring::config {

PhaseSettings ResolvePhase(const RunConfig& config, int index) {
  CHECK_GE(index, 0);
  CHECK_LT(index, config.train().phase_size());
  const Phase& phase = config.train().phase(index);
  PhaseSettings settings;
  settings.phase = &phase;
  settings.layout = config.layout();
  LayoutConfig replacement = phase.layout();
  MergeReplacing(replacement, settings.layout, "", nullptr);
  settings.lanes = phase.has_lanes() ? phase.lanes() : config.train().lanes();
  settings.expert_lanes = phase.has_expert_lanes() ? phase.expert_lanes() : config.train().expert_lanes();
  settings.yarn = phase.has_yarn() ? &phase.yarn() : config.model().has_yarn() ? &config.model().yarn() : nullptr;
  return settings;
}

double YarnTemperature(double factor, double mscale) { return factor > 1 ? 0.1 * mscale * std::log(factor) + 1 : 1; }

int64_t YarnReach(const YarnConfig& yarn) { return static_cast<int64_t>(yarn.original_length() * yarn.factor()); }

TrainedModel ModelAfter(const RunConfig& config, int phases) {
  TrainedModel trained;
  trained.model = config.model();
  if (phases > 0) {
    const YarnConfig* const yarn = ResolvePhase(config, phases - 1).yarn;
    if (yarn != nullptr) *trained.model.mutable_yarn() = *yarn;
  }
  if (trained.model.has_yarn()) {
    trained.context_length = YarnReach(trained.model.yarn());
    return trained;
  }
  for (int i = 0; i < std::min(std::max(phases, 1), config.train().phase_size()); ++i) {
    trained.context_length = std::max<int64_t>(trained.context_length, config.train().phase(i).sequence_length());
  }
  return trained;
}

int64_t WorldSize(const LayoutConfig& layout) { return int64_t{layout.pipeline_ranks()} * layout.data_ranks(); }

int Directions(const LayoutConfig& layout) { return layout.has_dualpipe() ? 2 : 1; }

int64_t StagesOfSchedule(const LayoutConfig& layout) {
  const int64_t ranks = layout.pipeline_ranks();
  switch (layout.schedule_case()) {
    case LayoutConfig::kInterleaved: return ranks * layout.interleaved().chunks();
    case LayoutConfig::kZbV:
    case LayoutConfig::kDualpipeV: return 2 * ranks;
    case LayoutConfig::kGpipe:
    case LayoutConfig::kOneFOneB:
    case LayoutConfig::kZbH1:
    case LayoutConfig::kDualpipe:
    case LayoutConfig::SCHEDULE_NOT_SET: return ranks;
  }
  return ranks;
}

std::vector<int> LayersPerStage(const LayoutConfig& layout, int layers) {
  if (layout.layers_per_stage_size() > 0) return {layout.layers_per_stage().begin(), layout.layers_per_stage().end()};
  CHECK_GT(layout.stages(), 0);
  std::vector<int> result(layout.stages(), layers / layout.stages());
  for (int i = 0; i < layers % layout.stages(); ++i) ++result[i];
  return result;
}

int64_t BatchSequences(const PhaseSettings& settings, int64_t tokens) {
  const BatchSchedule& batch = settings.phase->batch();
  if (!batch.has_ramp()) return batch.sequences();
  const BatchRamp& ramp = batch.ramp();
  const int64_t unit = settings.lanes * settings.phase->micro_batch();
  CHECK_GT(unit, 0);
  const __int128 reached = std::clamp<int64_t>(tokens, 0, ramp.over_tokens());
  const __int128 growth = ramp.to_sequences() - ramp.from_sequences();
  // In integers: a sum in floating point could round differently on another machine, and move a step's batch.
  const __int128 exact = ramp.from_sequences() * __int128{ramp.over_tokens()} + growth * reached;
  const auto sequences = static_cast<int64_t>(exact / std::max<int64_t>(ramp.over_tokens(), 1));
  return std::max(sequences / unit * unit, unit);
}

double ValueAtTokens(const google::protobuf::RepeatedPtrField<TokenValue>& pieces, int64_t tokens) {
  for (const TokenValue& piece : pieces) {
    if (!piece.has_until_tokens() || tokens < piece.until_tokens()) return piece.value();
  }
  return pieces.empty() ? 0 : pieces[pieces.size() - 1].value();
}

}  // namespace shoestring::config
