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

void SetPosition(const RunPosition& position, checkpoint::SnapshotHeader& header);
RunPosition PositionOf(const checkpoint::SnapshotHeader& header);

}  // namespace shoestring
