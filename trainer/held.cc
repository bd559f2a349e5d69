// Who holds, sums and updates what, from mesh and table.
#include "trainer/held.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "configs/resolve.h"
#include "kernels/operations.h"
#include "trainer/accumulate.h"

namespace shoestring {
namespace {

constexpr absl::string_view kEmbedding = "model.embed_tokens.weight";

// Flat positions at which a rank's part may begin: where a norm block does.
std::vector<int64_t> LegalCuts(const std::vector<Parameter>& parameters, const std::vector<HeldParameter>& held,
                               const std::vector<int>& members) {
  std::vector<int64_t> cuts;
  for (int i : members) {
    const int64_t matrix = parameters[i].rows * parameters[i].cols;
    for (int64_t m = 0; m < parameters[i].stack; ++m) {
      for (int64_t first = 0; first < matrix; first += kNormBlockElements) {
        cuts.push_back(held[i].group_offset + m * matrix + first);
      }
    }
  }
  return cuts;
}

// As even as the cuts allow.
std::vector<int64_t> Cut(const std::vector<int64_t>& cuts, int64_t elements, int ranks) {
  std::vector<int64_t> boundaries = {0};
  for (int r = 1; r < ranks; ++r) {
    const int64_t wanted = elements / ranks * r + elements % ranks * r / ranks;
    const auto above = std::lower_bound(cuts.begin(), cuts.end(), wanted);
    int64_t cut = above == cuts.end() ? elements : *above;
    if (above != cuts.begin() && wanted - *std::prev(above) < cut - wanted) cut = *std::prev(above);
    boundaries.push_back(std::max(cut, boundaries.back()));
  }
  boundaries.push_back(elements);
  return boundaries;
}

// What lies below flat position `boundary` of the group, as a position of the section.
int64_t InSection(const GradientSection& section, const std::vector<HeldParameter>& held, int64_t boundary) {
  for (size_t i = 0; i < section.members.size(); ++i) {
    const int64_t end = i + 1 < section.members.size() ? section.starts[i + 1] : section.elements;
    const int64_t into = boundary - held[section.members[i]].group_offset;
    if (into < end - section.starts[i]) return section.starts[i] + std::max<int64_t>(into, 0);
  }
  return section.elements;
}

}  // namespace

std::vector<StagePlacement> PlaceStages(const config::ModelConfig& model, const config::LayoutConfig& layout) {
  const std::vector<int> layers = config::LayersPerStage(layout, model.layers());
  std::vector<StagePlacement> placements;
  int64_t next = 0;
  for (size_t s = 0; s < layers.size(); ++s) {
    placements.push_back({next, layers[s], s == 0, s + 1 == layers.size()});
    next += layers[s];
  }
  return placements;
}

int64_t SharingGroup::largest_share() const {
  int64_t largest = 0;
  for (size_t j = 0; j + 1 < boundaries.size(); ++j) largest = std::max(largest, boundaries[j + 1] - boundaries[j]);
  return largest;
}

class HeldTable::Builder {
 public:
  Builder(const std::vector<Parameter>& whole, std::vector<StagePlacement> placements, const Mesh& mesh, Rank rank,
          bool copies, bool zero1)
      : placements_(std::move(placements)), mesh_(mesh), rank_(rank), copies_(copies), zero1_(zero1) {
    table_.whole_ = whole;
  }

  HeldTable Build() {
    CountBlocks();
    for (StageId stage : mesh_.StagesAt(mesh_.PositionOf(rank_))) {
      table_.stages_.push_back({stage, placements_[stage.value]});
    }
    ListParameters();
    for (SharingGroup& group : table_.groups_) LayOut(group);
    for (SharingGroup& group : table_.groups_) ListSections(group);
    for (HeldParameter& held : table_.held_) SetRanges(held);
    return std::move(table_);
  }

 private:
  // Last stage first: its gradients are there first.
  using GroupKey = std::pair<int, bool>;  // minus the first stage of use, expert; ends come last

  int LastStage() const { return static_cast<int>(placements_.size()) - 1; }
  bool IsHere(StageId stage) const {
    for (const HeldStage& held : table_.stages_) {
      if (held.id == stage) return true;
    }
    return false;
  }
  StageId StageOf(const Parameter& p, int use) const {
    if (p.name == kEmbedding) return StageId(use == 0 ? 0 : LastStage());
    if (p.layer < 0 || p.is_mtp) return StageId(LastStage());
    for (int s = 0; s < LastStage(); ++s) {
      if (p.layer < placements_[s].first_layer + placements_[s].layer_count) return StageId(s);
    }
    return StageId(LastStage());
  }
  bool IsCopied(const Parameter& p) const { return copies_ && p.compute_copy; }

  void CountBlocks() {
    int64_t blocks = 0;
    for (const Parameter& p : table_.whole_) {
      table_.first_block_.push_back(blocks);
      if (p.trained) blocks += p.stack * NormBlocks(p.rows * p.cols);
    }
    table_.first_block_.push_back(blocks);
  }

  void ListParameters() {
    std::map<GroupKey, std::vector<int>> groups;
    for (size_t i = 0; i < table_.whole_.size(); ++i) {
      Parameter p = table_.whole_[i];
      std::set<StageId> stages;
      for (int use = 0; use < p.uses; ++use) stages.insert(StageOf(p, use));
      if (std::none_of(stages.begin(), stages.end(), [&](StageId s) { return IsHere(s); })) continue;
      HeldParameter held;
      held.table_index = static_cast<int>(i);
      const bool expert = p.domain == MeshDomain::kExpert;
      if (expert) {
        const IndexRange experts = mesh_.ExpertsOf(rank_, static_cast<int>(p.stack));
        held.first_matrix = experts.first;
        p.stack = experts.count;
      }
      if (p.trained) {
        const bool ends = stages.size() > 1;
        groups[{ends ? 1 : -stages.begin()->value, expert}].push_back(static_cast<int>(table_.held_.size()));
      }
      table_.parameters_.push_back(std::move(p));
      table_.held_.push_back(held);
    }
    for (auto& [key, members] : groups) AddGroup(key, std::move(members));
  }

  void AddGroup(const GroupKey& key, std::vector<int> members) {
    SharingGroup group;
    const bool ends = key.first == 1;
    if (ends && mesh_.EndsGroup(rank_).size() > 0) {
      group.kind = SharingGroup::Ranks::kEnds;
      group.ranks = mesh_.EndsGroup(rank_);
    } else if (key.second) {
      group.kind = SharingGroup::Ranks::kExpertReplicas;
      group.ranks = mesh_.ExpertReplicaGroup(rank_);
    } else {
      group.ranks = mesh_.ReplicaGroup(rank_);
    }
    group.name = ends ? "both ends" : absl::StrCat(key.second ? "experts" : "dense", " of stage ", -key.first);
    std::stable_partition(members.begin(), members.end(), [&](int i) { return IsCopied(table_.parameters_[i]); });
    group.members = std::move(members);
    group.sharded = zero1_ && group.ranks.size() > 1;
    table_.groups_.push_back(std::move(group));
  }

  void LayOut(SharingGroup& group) {
    for (int i : group.members) {
      const Parameter& p = table_.parameters_[i];
      table_.held_[i].group = static_cast<int>(&group - table_.groups_.data());
      table_.held_[i].group_offset = group.elements;
      group.elements += FlatElements(p.elements());
      if (IsCopied(p)) group.copied_elements = group.elements;
    }
    group.boundaries =
        Cut(LegalCuts(table_.parameters_, table_.held_, group.members), group.elements, group.ranks.size());
  }

  void ListSections(SharingGroup& group) {
    std::map<std::pair<int, StageId>, std::vector<int>> sections;  // by use
    for (int i : group.members) {
      const Parameter& p = table_.parameters_[i];
      for (int use = 0; use < p.uses; ++use) sections[{use, StageOf(p, use)}].push_back(i);
    }
    for (auto& [key, members] : sections) {
      GradientSection section;
      section.use = key.first;
      section.stage = key.second;
      for (int i : members) {
        section.starts.push_back(section.elements);
        section.elements += FlatElements(table_.parameters_[i].elements());
      }
      section.members = std::move(members);
      for (int64_t boundary : group.boundaries) {
        section.boundaries.push_back(InSection(section, table_.held_, boundary));
      }
      for (HeldStage& stage : table_.stages_) {
        if (stage.id != section.stage) continue;
        int64_t& elements =
            group.kind == SharingGroup::Ranks::kExpertReplicas ? stage.expert_elements : stage.dense_elements;
        section.offset = elements;
        elements += section.elements;
      }
      group.sections.push_back(std::move(section));
    }
  }

  void SetRanges(HeldParameter& held) {
    const Parameter& p = table_.parameters_[&held - table_.held_.data()];
    held.kept = {0, p.elements()};
    if (held.group < 0) return;
    const SharingGroup& group = table_.groups_[held.group];
    const int index = group.ranks.IndexOf(rank_);
    const int64_t first = std::clamp<int64_t>(group.boundaries[index] - held.group_offset, 0, p.elements());
    const int64_t end = std::clamp<int64_t>(group.boundaries[index + 1] - held.group_offset, 0, p.elements());
    held.reduced = {first, end - first};
    if (group.sharded) held.kept = held.reduced;
  }

  const std::vector<StagePlacement> placements_;
  const Mesh& mesh_;
  const Rank rank_;
  const bool copies_;
  const bool zero1_;
  HeldTable table_;
};

HeldTable HeldTable::Whole(const std::vector<Parameter>& table, bool copies) {
  const Mesh mesh = *Mesh::Create(config::LayoutConfig());
  int layers = 0;
  for (const Parameter& p : table) {
    if (!p.is_mtp) layers = std::max(layers, p.layer + 1);
  }
  return Builder(table, {{0, layers, true, true}}, mesh, Rank(0), copies, /*zero1=*/false).Build();
}

HeldTable HeldTable::Create(const std::vector<Parameter>& table, const config::ModelConfig& model,
                            const config::LayoutConfig& layout, const Mesh& mesh, Rank rank, bool copies) {
  return Builder(table, PlaceStages(model, layout), mesh, rank, copies, layout.zero1()).Build();
}

}  // namespace shoestring
