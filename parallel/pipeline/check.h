// Is a schedule program right? Order, completeness, messages and deadlock; and how many micro-batches live at once.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/program.h"

namespace shoestring {

// FAILED_PRECONDITION with position, place and text of the first action that is wrong; for a deadlock, of every
// position that waits and what for. Checked:
//   each stage's work is done where the mesh holds that stage;
//   every micro-batch of every stage and direction has one F and one B, or one I and then one W, none twice;
//   an F has its input, a B or I its output gradient: computed here before, or received;
//   weight gradients of a stage and direction are added in the order of micro-batches (docs/numerics.md);
//   what another position needs is sent once, after it was made; every message that is sent is received, in the order
//   of its channel: sender, receiver, and whether it goes forward or backward; each stage is reduced once at each
//   position that holds it, after its last weight gradient.
// A send waits for nobody (a transport buffers it or has a stream of its own), a receive for its message, a reduction
// for the other position that holds the stage, if the pipeline is bidirectional.
// `micro_batches` has one count a direction.
absl::Status CheckProgram(const Program& program, const Mesh& mesh, const std::vector<int64_t>& micro_batches);

// Where the activations of each action's micro-batch lie. A slot of a stage is taken at the first action that touches
// the micro-batch there (its F, or the receive before) and given back after the last (its W, B or the send of its
// input gradient, or the work of a neighbouring stage at the same position that reads from it).
struct SlotPlan {
  struct Slots {
    int work = -1;         // of action.work
    int work_source = -1;  // of the neighbouring stage here that made what it reads; -1: there is none here
    int paired = -1;       // the same of action.paired
    int paired_source = -1;
  };
  std::vector<Slots> actions;   // beside the actions of the position
  std::map<StageId, int> live;  // slots that each stage needs: the most micro-batches alive at once
};

// Of one position of a program that CheckProgram found right.
SlotPlan PlanSlots(const std::vector<Action>& actions);

}  // namespace shoestring
