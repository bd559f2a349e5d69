// Phase by phase.
#include "parallel/pipeline/dualpipe_phases.h"

#include "base/check.h"

namespace shoestring {
namespace {

// Backwards of the drain in turn, far and near; the second half of the 2 (q + 1) leaves its weight gradients for later.
void DrainInTurn(const DualPipePosition& position, ComputeList& list) {
  const int rounds = position.from_end + 1;
  for (int i = 0; i < 2 * rounds; ++i) {
    const Chunk chunk = i % 2 == 0 ? position.far : position.near;
    if (i < rounds) {
      list.Backward(chunk);
    } else {
      list.BackwardInput(chunk);
    }
  }
}

}  // namespace

void BuildDualPipePhases(const DualPipePosition& position, std::vector<Action>& actions) {
  CHECK_GE(position.per_chunk, 2 * position.half);
  const Chunk near = position.near, far = position.far;
  const int behind = position.half - 1 - position.from_end;  // positions between here and the turning point
  const int rounds = position.from_end + 1;
  ComputeList list(actions);
  for (int i = 0; i < 2 * behind; ++i) list.Forward(near);
  for (int i = 0; i < rounds; ++i) {
    list.Forward(near);
    list.Forward(far);
  }
  for (int i = 0; i < behind; ++i) {
    list.BackwardInput(far);
    list.OldestWeights();
    list.Forward(far);
  }
  for (int64_t i = 0; i < position.per_chunk - 2 * position.half + rounds; ++i) {
    if (i == 0 && behind == 0) {
      // At the turning point the output is wanted at once: overlapping this pair would hold it up.
      list.Forward(near);
      list.Backward(far);
    } else {
      list.Overlapped(near, far);
    }
    list.Overlapped(far, near);
  }
  for (int i = 0; i < behind; ++i) {
    list.Backward(far);
    list.Overlapped(far, near);
  }
  DrainInTurn(position, list);
  for (int i = 0; i < behind; ++i) {
    list.OldestWeights();
    list.BackwardInput(near);
  }
  while (list.weights_wait()) list.OldestWeights();
}

}  // namespace shoestring
