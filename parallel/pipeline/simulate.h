// Runs a program on virtual time: when each action would start and end, what each position would wait, and how many
// micro-batches would be alive, for given costs.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"

namespace shoestring {

// Of one micro-batch. A whole backward takes backward_s(). Papers that write F, B, W mean different things by B: in the
// DualPipe table (V3 report, table 2) B is the whole backward, so B = backward_s(); in the zero-bubble papers it is the
// gradient of inputs alone, so B = backward_input_s.
struct StageCosts {
  double forward_s = 1.0;
  double backward_input_s = 1.0;
  double backward_weight_s = 1.0;
  double backward_s() const { return backward_input_s + backward_weight_s; }
};

struct ProgramCosts {
  std::vector<StageCosts> stages;  // of every stage of the model
  // An overlapped pair takes this share of its forward and its backward one after the other (F&B of the DualPipe table
  // is overlapped_share * (F + B)), but no less than the longer of the two.
  double overlapped_share = 1.0;
  double message_s = 0.0;  // from the end of the action that made a tensor until it is there; messages never queue
  double reduce_s = 0.0;   // of one stage, from when every position that holds it has come to it

  static ProgramCosts Equal(int stages, const StageCosts& costs = {}) {
    return {std::vector<StageCosts>(stages, costs)};
  }
  // Computation of an action; 0 for messages and reductions.
  double DurationOf(const Action& action) const;
};

struct Simulation {
  // A receive lasts from when the position comes to it until the message is there, a reduction until all have reduced.
  struct Interval {
    double start_s = 0.0;
    double end_s = 0.0;
  };
  // Micro-batches alive from `time_s` on, all stages of the position together: from the start of their forward to the
  // end of their weight gradient.
  struct Live {
    double time_s = 0.0;
    int count = 0;
  };
  struct Position {
    std::vector<Interval> actions;  // beside the actions of the program
    double busy_s = 0.0;            // computing
    double first_start_s = 0.0;     // of the first computation
    double last_end_s = 0.0;        // of the last computation
    std::vector<Interval> waits;    // inside computations, for other ranks; a simulation has none, a record may
    std::vector<Live> live;         // one entry a change
    int most_live = 0;
    double idle_inside_s() const { return last_end_s - first_start_s - busy_s; }
  };
  std::vector<Position> positions;
  double makespan_s = 0.0;  // until the last action of all positions has ended

  // What a position does not compute in: the bubble, offsets at both ends included.
  double bubble_s(int position) const { return makespan_s - positions[position].busy_s; }
  double bubble_share() const;  // of makespan * positions
};

// `program` is one that CheckProgram found right for `mesh`; costs.stages has mesh.stages() entries.
Simulation Simulate(const Program& program, const Mesh& mesh, const ProgramCosts& costs);

}  // namespace shoestring
