// The tensors of a training state where the host can read and write them: the state's own, or copies of them.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/train_state.h"

namespace shoestring {

class HostState {
 public:
  // Takes memory of the host for the copies, if the backend's memory is its own: RESOURCE_EXHAUSTED says how much. All
  // references outlive the result.
  static absl::StatusOr<HostState> Open(Backend& backend, Stream& stream, const TrainState& state);

  // As StateTensorsOf names them. What they hold is that of the state after Bring; the state has it after Return.
  const std::vector<StateTensor>& tensors() const { return tensors_; }
  void Bring();
  void Return();

 private:
  HostState(Backend& backend, Stream& stream, std::vector<StateTensor> own);

  Backend* backend_;
  Stream* stream_;
  std::vector<StateTensor> own_;  // of the state
  std::vector<StateTensor> tensors_;
  std::unique_ptr<Memory> memory_;  // of the copies; null: there are none
};

}  // namespace shoestring
