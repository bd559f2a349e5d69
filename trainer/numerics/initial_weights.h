// The weights with which a config's run would begin, without the rest of its state.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "configs/schema/run.pb.h"
#include "trainer/checkpoint/snapshot.h"

namespace shoestring {

// Fills weights and routing biases of `config` as TrainState::Initialize makes them; `tensors` in table order, in host
// memory. RESOURCE_EXHAUSTED when there is no room for a state to make them in.
absl::Status WriteInitialWeights(const config::RunConfig& config, int threads, const std::vector<StateTensor>& tensors);

}  // namespace shoestring
