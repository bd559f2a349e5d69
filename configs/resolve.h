// What a config means where one part of it overrides another: the settings in force in a phase.
#pragma once

#include <cstdint>
#include <vector>

#include "configs/schema/run.pb.h"

namespace shoestring::config {

// The settings of one phase after its overrides. Pointers point into the config and live as long.
struct PhaseSettings {
  const Phase* phase;
  LayoutConfig layout;     // the run's, with what the phase replaces
  int64_t lanes;           // L
  int64_t expert_lanes;    // G
  const YarnConfig* yarn;  // null: plain RoPE
};

// `index` is in [0, config.train().phase_size()).
PhaseSettings ResolvePhase(const RunConfig& config, int index);

// Attention temperature under YaRN: 0.1 * mscale * ln(factor) + 1; 1 where the factor is not above 1.
double YarnTemperature(double factor, double mscale);

// Tokens of the longest context that YaRN is for: original_length * factor.
int64_t YarnReach(const YarnConfig& yarn);

// What a run has after its first `phases` phases; 0: before its first step.
struct TrainedModel {
  ModelConfig model;           // with the YaRN of the last of those phases
  int64_t context_length = 0;  // what that YaRN reaches, else the longest sequence of those phases (0: of the first)
};
TrainedModel ModelAfter(const RunConfig& config, int phases);

// Ranks: pipeline_ranks * data_ranks.
int64_t WorldSize(const LayoutConfig& layout);

// Directions in which micro-batches enter the pipeline: 2 for dualpipe, else 1.
int Directions(const LayoutConfig& layout);

// Stages that the schedule wants for the layout's pipeline_ranks (see LayoutConfig.stages).
int64_t StagesOfSchedule(const LayoutConfig& layout);

// Layers of the main model in each stage: layers_per_stage, or as even as possible, the earlier stages taking the rest.
std::vector<int> LayersPerStage(const LayoutConfig& layout, int layers);

// Sequences of the step that begins when `tokens` of the phase are consumed: the constant, or the ramp rounded down to
// a multiple of lanes * micro_batch (never below one such unit).
int64_t BatchSequences(const PhaseSettings& settings, int64_t tokens);

// Value of a function that is constant by pieces, for a step that begins when `tokens` of the run are consumed.
// 0 when there are no pieces.
double ValueAtTokens(const google::protobuf::RepeatedPtrField<TokenValue>& pieces, int64_t tokens);

}  // namespace shoestring::config
