// The schedule program: for each pipeline position a list of actions over (stage, micro-batch, direction). One object
// is built, printed, checked and executed; its text form and its parser are inverses.
//
// Text, one line a position, actions separated by blanks ("#" starts a comment):
//   0: F0.0 SF0.0>1 RB0.0<1 B0.0 G0
// F2.5       forward of stage 2, micro-batch 5          B2.5  backward, inputs then weights
// I2.5       gradients of inputs only                   W2.5  deferred gradients of weights
// F0.3+B2.1  a forward and a backward, overlapped
// SF2.5>3    sends the output of stage 2 to position 3   RF3.5<2  receives the input of stage 3 from position 2
// SB3.5>2    sends the input gradient of stage 3         RB2.5<3  receives the output gradient of stage 2
// G2         reduces the gradients of stage 2
// An apostrophe after the micro-batch (F2.5') marks direction 1 of a bidirectional pipeline, whose micro-batches are
// numbered for themselves.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "parallel/mesh.h"

namespace shoestring {

enum class ActionKind {
  kForward,
  kBackward,
  kBackwardInput,
  kBackwardWeight,
  kOverlapped,  // forward of `work`, backward of `paired`
  kSendForward,
  kReceiveForward,
  kSendBackward,
  kReceiveBackward,
  kReduce,  // `work.micro_batch` has no meaning and is 0
};

// What an action works on.
struct Work {
  StageId stage;
  int64_t micro_batch = 0;  // 0, 1, ... in each direction of each pipeline replica
  Direction direction;
  friend bool operator==(const Work&, const Work&) = default;
  friend bool operator<(const Work& a, const Work& b) {
    return std::tie(a.direction, a.stage, a.micro_batch) < std::tie(b.direction, b.stage, b.micro_batch);
  }
};

struct Action {
  ActionKind kind = ActionKind::kForward;
  Work work;
  Work paired;    // of kOverlapped: the backward
  int peer = -1;  // of sends and receives: the other pipeline position
  friend bool operator==(const Action&, const Action&) = default;
};

struct Program {
  std::vector<std::vector<Action>> positions;  // actions of each pipeline position, in order
  friend bool operator==(const Program&, const Program&) = default;
};

bool IsSend(ActionKind kind);
bool IsReceive(ActionKind kind);

// What an action computes, in the order in which it is safe to do: gradients of inputs, of weights, then the forward.
// Parts that it does not have are null; the pointers are into the action. Messages and reductions have none.
struct Parts {
  const Work* backward_input = nullptr;
  const Work* backward_weight = nullptr;
  const Work* forward = nullptr;
};
Parts PartsOf(const Action& action);

// The work on the same micro-batch `step` stages further; the stage may be one that does not exist.
Work Neighbour(const Work& work, int step);

std::string ToString(const Work& work);  // "2.5'"
std::string ToString(const Action& action);
std::string ToString(const Program& program);  // ends in a line break

// INVALID_ARGUMENT names the line and the word. Parse(ToString(p)) == p, and ToString(Parse(text)) == text for text
// without comments, extra blanks or leading zeros.
absl::StatusOr<Action> ParseAction(absl::string_view word);
absl::StatusOr<Program> ParseProgram(absl::string_view text);

}  // namespace shoestring
