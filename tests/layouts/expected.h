// What each rank of a layout must have done, held and received: computed from config, mesh, parameter table, the
// layers' costs and the experts that tokens chose, and compared with what was counted.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "configs/resolve.h"
#include "configs/schema/run.pb.h"
#include "parallel/mesh.h"
#include "tests/layouts/layout_run.h"
#include "trainer/held.h"
#include "trainer/model/shape.h"
#include "trainer/params.h"

namespace shoestring {

// A config's sizes, once.
struct LayoutBooks {
  explicit LayoutBooks(const config::RunConfig& config);

  bool zero1() const { return layout.zero1(); }
  int64_t lanes_of_rank() const { return lanes / (mesh.data_ranks() * mesh.directions()); }  // in each direction
  int64_t micro_batches() const { return lanes_of_rank() * waves; }                          // of a rank and direction
  bool Holds(Rank rank, int stage, int direction) const {
    return mesh.StagePosition(StageId(stage), Direction(direction)) == mesh.PositionOf(rank);
  }
  std::vector<int64_t> MoeLayersOf(int stage) const;  // MTP module k is layers + k

  const config::RunConfig& config;
  const config::LayoutConfig layout;
  const Mesh mesh;
  const ModelShape shape;
  const std::vector<Parameter> table;
  const std::vector<StagePlacement> placements;
  const int64_t lanes, waves, expert_lanes;
  const int64_t act_bytes;
};

// One line for each thing that is not as it should be; empty: all is.
std::vector<std::string> FindDifferences(const LayoutBooks& books, const LayoutRun& run);

// --- parts -----------------------------------------------------------------------------------------------------------

// Forward actions of a rank, in order: the layers whose tokens were dispatched, one a RankRecord::choices.
std::vector<int64_t> DispatchedLayers(const LayoutBooks& books, const std::vector<Action>& actions);

// Who holds and shares what is as the mesh says; held tables of all ranks are compared with each other.
void CheckHeld(const LayoutBooks& books, const std::vector<HeldTable>& held, std::vector<std::string>& found);
// Bytes of weights, copies, moments and averages.
std::map<Purpose, int64_t> StateBytes(const LayoutBooks& books, const HeldTable& held);
// Gradients and weights of one step, by communicator.
std::map<std::string, Received> StateReceived(const LayoutBooks& books, const HeldTable& held, Rank rank);
// Over the communicator of experts, in one step.
Received ExchangeReceived(const LayoutBooks& books, const std::vector<RankRecord>& ranks, Rank rank);

}  // namespace shoestring
