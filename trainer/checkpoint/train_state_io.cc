// Which views of a training state are which tensors of a checkpoint.
#include "trainer/checkpoint/train_state_io.h"

#include <cstdint>
#include <utility>

namespace shoestring {

std::vector<StateTensor> StateTensorsOf(const TrainState& state) {
  std::vector<StateTensor> tensors;
  for (size_t i = 0; i < state.table().size(); ++i) {
    const Parameter& p = state.table()[i];
    const ParameterState& views = state.parameter(i);
    std::vector<int64_t> shape = {p.cols};
    if (p.decay) shape = {p.rows, p.cols};  // a matrix, if only of one row
    if (p.domain == MeshDomain::kExpert) shape = {p.stack, p.rows, p.cols};
    const std::pair<StateKind, View> kinds[] = {{p.trained ? StateKind::kWeights : StateKind::kBias, views.master},
                                                {StateKind::kExpAvg, views.m},
                                                {StateKind::kExpAvgSq, views.v},
                                                {StateKind::kEma, views.ema}};
    for (const auto& [kind, view] : kinds) {
      if (view) tensors.push_back({kind, p.name, shape, view});
    }
  }
  return tensors;
}

void SetPosition(const RunPosition& position, checkpoint::SnapshotHeader& header) {
  header.set_step(position.step);
  header.set_consumed_tokens(position.tokens);
  header.set_phase(position.phase);
  header.set_phase_step(position.phase_step);
  header.set_phase_tokens(position.phase_tokens);
  header.set_phase_sequences(position.phase_sequences);
}

RunPosition PositionOf(const checkpoint::SnapshotHeader& header) {
  return {header.step(),       header.consumed_tokens(), header.phase(),
          header.phase_step(), header.phase_tokens(),    header.phase_sequences()};
}

}  // namespace shoestring
