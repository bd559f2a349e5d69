// Which views of a training state are which tensors of a checkpoint.
#include "trainer/checkpoint/train_state_io.h"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace shoestring {

namespace {

std::vector<int64_t> ShapeOf(const Parameter& p) {
  if (p.domain == MeshDomain::kExpert) return {p.stack, p.rows, p.cols};
  if (p.decay) return {p.rows, p.cols};  // a matrix, if only of one row
  return {p.cols};
}

using KindAndView = std::pair<StateKind, View>;
std::array<KindAndView, 4> Views(const Parameter& p, const ParameterState& state) {
  return {{{p.trained ? StateKind::kWeights : StateKind::kBias, state.master},
           {StateKind::kExpAvg, state.m},
           {StateKind::kExpAvgSq, state.v},
           {StateKind::kEma, state.ema}}};
}

}  // namespace

std::vector<StateTensor> StateTensorsOf(const TrainState& state) {
  std::vector<StateTensor> tensors;
  for (size_t i = 0; i < state.table().size(); ++i) {
    const Parameter& p = state.table()[i];
    for (const auto& [kind, view] : Views(p, state.parameter(i))) {
      if (view) tensors.push_back({kind, p.name, ShapeOf(p), view});
    }
  }
  return tensors;
}

std::vector<StateTensor> WholeStateTensors(const TrainState& state) {
  const StateFormat& format = state.format();
  std::vector<StateTensor> tensors;
  for (const Parameter& p : state.held().whole()) {
    const auto add = [&](StateKind kind, DType dtype) {
      tensors.push_back({kind, p.name, ShapeOf(p), View(nullptr, dtype, 0, 0)});
    };
    add(p.trained ? StateKind::kWeights : StateKind::kBias, DType::kF32);
    if (!p.trained) continue;
    add(StateKind::kExpAvg, format.moments);
    add(StateKind::kExpAvgSq, format.moments);
    if (format.ema) add(StateKind::kEma, DType::kF32);
  }
  return tensors;
}

std::vector<StatePart> PartsOf(const TrainState& state, const RankLinks& links, StateScope which) {
  std::map<std::pair<StateKind, std::string>, size_t> tensors;
  for (const StateTensor& tensor : WholeStateTensors(state)) {
    tensors.emplace(std::pair(tensor.kind, tensor.name), tensors.size());
  }
  const bool speaks = links.replicas->index() == 0;  // of what is on every replica
  std::vector<StatePart> parts;
  for (size_t i = 0; i < state.table().size(); ++i) {
    const Parameter& p = state.table()[i];
    const HeldParameter& held = state.held().held()[i];
    IndexRange range = held.kept;
    if (which == StateScope::kSpoken) range = held.group >= 0 ? held.reduced : IndexRange{0, speaks ? p.elements() : 0};
    if (range.count == 0) continue;
    const int64_t first = held.first_matrix * p.rows * p.cols + range.first;
    for (const auto& [kind, view] : Views(p, state.parameter(i))) {
      if (!view) continue;
      parts.push_back({tensors.at({kind, p.name}), first,
                       view.Reshape(1, view.elements()).Columns(range.first - held.kept.first, range.count)});
    }
  }
  return parts;
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
