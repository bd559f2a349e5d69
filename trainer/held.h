// What a rank holds of the parameter table: the parameters of its stages, its experts' part of each stack; and with
// which ranks it shares the sum and the update of each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/schema/model.pb.h"
#include "configs/schema/parallel.pb.h"
#include "parallel/mesh.h"
#include "trainer/params.h"

namespace shoestring {

// The layers of each stage of the layout, in order of stages.
std::vector<StagePlacement> PlaceStages(const config::ModelConfig& model, const config::LayoutConfig& layout);

// One parameter of the rank's own table.
struct HeldParameter {
  int table_index = 0;       // in the table of the whole model
  int64_t first_matrix = 0;  // of the whole stack: the first one that is held here
  int group = -1;            // of HeldTable::groups(); -1: not trained
  int64_t group_offset = 0;  // of its first element in the group's flat order
  IndexRange reduced;        // elements that this rank sums over the group and takes the norm of: whole norm blocks
  IndexRange kept;           // elements whose master weights and moments are here: `reduced` under ZeRO-1, else all

  bool keeps_all(const Parameter& p) const { return kept.count == p.elements(); }
};

// Accumulators that lie one after the other in those of a stage: the parameters of a group that the stage uses in one
// way.
struct GradientSection {
  StageId stage;
  int use = 0;
  int64_t offset = -1;  // of the first element in the stage's accumulators; -1: the stage is not here
  int64_t elements = 0;
  std::vector<int> members;         // indices into HeldTable::parameters()
  std::vector<int64_t> starts;      // of each member, in elements from the section's first
  std::vector<int64_t> boundaries;  // what the j-th rank of the group sums: [boundaries[j], boundaries[j + 1])
};

// Parameters whose gradients the same ranks sum. In flat order those with a copy in the activation dtype come first;
// each starts at a multiple of kFlatAlignElements.
struct SharingGroup {
  enum class Ranks { kReplicas, kExpertReplicas, kEnds };
  Ranks kind = Ranks::kReplicas;
  RankGroup ranks;
  std::string name;
  std::vector<int> members;
  int64_t elements = 0;
  int64_t copied_elements = 0;            // leading ones, of parameters with a copy in the activation dtype
  std::vector<int64_t> boundaries;        // flat elements that the j-th rank sums, cut where norm blocks begin
  std::vector<GradientSection> sections;  // use 0 first; also those of stages that are not here
  bool sharded = false;                   // ZeRO-1 over more than one rank

  int64_t largest_share() const;
};

// A stage that is held here.
struct HeldStage {
  StageId id;
  StagePlacement placement;
  int64_t dense_elements = 0;   // of one lane's accumulators
  int64_t expert_elements = 0;  // of those of one group of expert lanes
};

class HeldTable {
 public:
  // One rank that holds everything. `table` is copied; `copies` as below.
  static HeldTable Whole(const std::vector<Parameter>& table, bool copies);
  // `table` is that of the whole model, in which `copies` parameters (Parameter::compute_copy) have copies in another
  // dtype than f32.
  static HeldTable Create(const std::vector<Parameter>& table, const config::ModelConfig& model,
                          const config::LayoutConfig& layout, const Mesh& mesh, Rank rank, bool copies);

  // Of this rank: stacks are cut to the experts here.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<HeldParameter>& held() const { return held_; }
  const std::vector<SharingGroup>& groups() const { return groups_; }
  const std::vector<HeldStage>& stages() const { return stages_; }  // ascending
  // Norm blocks before each parameter of the whole table, in table order, and after the last.
  const std::vector<int64_t>& first_block() const { return first_block_; }
  const std::vector<Parameter>& whole() const { return whole_; }

 private:
  class Builder;
  HeldTable() = default;

  std::vector<Parameter> whole_;
  std::vector<Parameter> parameters_;
  std::vector<HeldParameter> held_;
  std::vector<SharingGroup> groups_;
  std::vector<HeldStage> stages_;
  std::vector<int64_t> first_block_;
};

}  // namespace shoestring
