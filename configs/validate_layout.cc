// Rules of a layout: how ranks divide lanes, experts, layers and micro-batches.
#include <algorithm>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "configs/validate_rules.h"

namespace shoestring::config {
namespace {

struct LayoutRules {
  const RunConfig& config;
  const PhaseSettings& settings;
  const LayoutConfig& layout;
  const std::string& path;        // of the layout
  const std::string& phase_path;  // of the phase it serves
  Findings& findings;

  std::string Field(const char* name) const { return absl::StrCat(path, ".", name); }
};

void ValidateLanes(const LayoutRules& r) {
  const int64_t data = r.layout.data_ranks();
  const int64_t directions = Directions(r.layout);
  if (!Divides(data * directions, r.settings.lanes)) {
    r.findings.Add(
        r.Field("data_ranks"),
        absl::StrCat(data, " data ranks * ", directions, " directions do not divide ", r.settings.lanes, " lanes"),
        "a rank owns whole lanes: change data_ranks or train.lanes");
    return;
  }
  const int64_t group = r.settings.lanes / std::max<int64_t>(data * directions, 1) * r.layout.expert_ranks();
  const bool canonical = r.config.train().reduction() == TrainConfig::CANONICAL;
  r.findings.AddUnless(!canonical || !r.config.model().has_moe() || Divides(r.settings.expert_lanes, group),
                       r.Field("expert_ranks"),
                       absl::StrCat("an expert group has lanes / (data_ranks * directions) * expert_ranks = ", group,
                                    " lanes, not a multiple of expert_lanes ", r.settings.expert_lanes),
                       "change expert_ranks or train.expert_lanes (1 suits every layout)");
}

void ValidateExpertRanks(const LayoutRules& r) {
  const int64_t ranks = r.layout.expert_ranks();
  r.findings.AddUnless(Divides(ranks, r.layout.data_ranks()), r.Field("expert_ranks"),
                       absl::StrCat(ranks, " does not divide ", r.layout.data_ranks(), " data ranks"),
                       "expert groups are parts of the data group");
  r.findings.AddUnless(ranks <= 1 || r.config.model().has_moe(), r.Field("expert_ranks"),
                       absl::StrCat("is ", ranks, ", but the model has no experts"), "say 1");
  const MoeConfig& moe = r.config.model().moe();
  r.findings.AddUnless(Divides(ranks, moe.routed_experts()), r.Field("expert_ranks"),
                       absl::StrCat(ranks, " does not divide ", moe.routed_experts(), " routed experts"),
                       "every rank of the group holds as many");
}

// A token goes once to each machine and from there to its experts: groups of experts must not straddle machines.
void ValidateNodes(const LayoutRules& r) {
  const int64_t node = r.layout.ranks_per_node();
  const int64_t world = WorldSize(r.layout);
  r.findings.AddUnless(world <= node || Divides(node, world), r.Field("ranks_per_node"),
                       absl::StrCat(world, " ranks do not fill machines of ", node), "machines are full");
  if (r.layout.exchange().path() != ExpertExchange::TWO_HOP) return;
  const int64_t ranks = r.layout.expert_ranks();
  r.findings.AddUnless(Divides(node, ranks), r.Field("exchange.path"),
                       absl::StrCat("TWO_HOP needs whole machines, but ", ranks, " expert ranks are not a multiple of ",
                                    node, " ranks_per_node"),
                       "say DIRECT, or change expert_ranks");
  const int64_t groups = r.config.model().moe().groups();
  r.findings.AddUnless(Divides(ranks, groups * node), r.Field("exchange.path"),
                       absl::StrCat("TWO_HOP needs routing groups inside machines, but ", groups, " groups lie across ",
                                    ranks, " expert ranks"),
                       "say DIRECT, or change model.moe.groups");
}

void ValidateStages(const LayoutRules& r) {
  const int64_t stages = r.layout.stages();
  const int64_t wanted = StagesOfSchedule(r.layout);
  r.findings.AddUnless(
      stages == wanted || wanted < 1, r.Field("stages"),
      absl::StrCat(stages, ", but the schedule makes ", wanted, " of ", r.layout.pipeline_ranks(), " pipeline ranks"),
      absl::StrCat("say ", wanted, ", or change the schedule"));
  const int layers = r.config.model().layers();
  const auto& split = r.layout.layers_per_stage();
  if (split.empty()) {
    r.findings.AddUnless(layers <= 0 || stages <= layers, r.Field("stages"),
                         absl::StrCat(stages, " stages have only ", layers, " layers"),
                         "use fewer, or say layers_per_stage with zeros");
    return;
  }
  r.findings.AddUnless(split.size() == stages, r.Field("layers_per_stage"),
                       absl::StrCat("has ", split.size(), " numbers for ", stages, " stages"), "one number a stage");
  const int64_t sum = std::accumulate(split.begin(), split.end(), int64_t{0});
  r.findings.AddUnless(layers <= 0 || sum == layers, r.Field("layers_per_stage"),
                       absl::StrCat("adds up to ", sum, ", but the model has ", layers, " layers"),
                       "every layer is in one stage; MTP modules are not counted");
}

// Interleaved stages take a whole number of rounds over the pipeline's ranks, in every step of the phase.
void ValidateRounds(const LayoutRules& r) {
  const int64_t ranks = r.layout.pipeline_ranks();
  const int64_t data = r.layout.data_ranks();
  const BatchSchedule& batch = r.settings.phase->batch();
  const std::string hint = absl::StrCat("a multiple of pipeline_ranks = ", ranks);
  if (batch.has_ramp() && batch.ramp().from_sequences() != batch.ramp().to_sequences()) {
    r.findings.AddUnless(Divides(ranks * data, r.settings.lanes), r.Field("interleaved"),
                         absl::StrCat(r.phase_path, " ramps the micro-batches of a pipeline by lanes / data_ranks = ",
                                      r.settings.lanes, " / ", data),
                         hint);
    return;
  }
  const int64_t sequences = batch.has_ramp() ? batch.ramp().from_sequences() : batch.sequences();
  const int64_t per_pipeline = r.settings.phase->micro_batch() * data;
  const int64_t micro_batches = per_pipeline > 0 ? sequences / per_pipeline : 0;
  r.findings.AddUnless(Divides(ranks, micro_batches), r.Field("interleaved"),
                       absl::StrCat(r.phase_path, " gives a pipeline ", micro_batches, " micro-batches a step"), hint);
}

void ValidateSchedule(const LayoutRules& r) {
  const int64_t ranks = r.layout.pipeline_ranks();
  r.findings.AddUnless(!r.layout.has_dualpipe() || ranks % 2 == 0, r.Field("dualpipe"),
                       absl::StrCat("has ", ranks, " pipeline ranks"),
                       "dualpipe needs an even number: each rank has a mirror");
  if (r.layout.has_interleaved()) ValidateRounds(r);
}

}  // namespace

void ValidateLayout(const RunConfig& config, const PhaseSettings& settings, const std::string& path,
                    const std::string& phase_path, Findings& findings) {
  const LayoutRules rules{config, settings, settings.layout, path, phase_path, findings};
  ValidateLanes(rules);
  ValidateExpertRanks(rules);
  ValidateNodes(rules);
  ValidateStages(rules);
  ValidateSchedule(rules);
}

}  // namespace shoestring::config
