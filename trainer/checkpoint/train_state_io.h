// The state of a training run as the tensors and the position that checkpoints keep.
#pragma once

#include <vector>

#include "trainer/checkpoint/manifest.pb.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/schedule.h"
#include "trainer/train_state.h"

namespace shoestring {

// Views of all that a checkpoint keeps of `state`, in host memory, to be saved or filled: master weights, moments,
// averages, routing biases; no compute copies (call RefreshCompute after filling). Valid as long as the state's arena.
std::vector<StateTensor> StateTensorsOf(const TrainState& state);

// The tensors of the whole state, of which ranks hold parts: shapes and dtypes as above; their views have no memory.
std::vector<StateTensor> WholeStateTensors(const TrainState& state);

// A part of such a tensor that is in this rank's memory.
struct StatePart {
  size_t tensor = 0;  // of WholeStateTensors
  int64_t first = 0;  // element of the whole tensor
  View view;          // [1, n]
};
enum class StateScope {
  kSpoken,  // each element of the state on exactly one rank
  kKept,    // all that this rank keeps
};
std::vector<StatePart> PartsOf(const TrainState& state, const RankLinks& links, StateScope which);

void SetPosition(const RunPosition& position, checkpoint::SnapshotHeader& header);
RunPosition PositionOf(const checkpoint::SnapshotHeader& header);

}  // namespace shoestring
