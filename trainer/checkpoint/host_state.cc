// Copies between a state and the host.
#include "trainer/checkpoint/host_state.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/host_memory.h"
#include "trainer/checkpoint/train_state_io.h"

namespace shoestring {
namespace {

constexpr int64_t kAlignment = 64;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

HostState::HostState(Backend& backend, Stream& stream, std::vector<StateTensor> own)
    : backend_(&backend), stream_(&stream), own_(std::move(own)), tensors_(own_) {}

absl::StatusOr<HostState> HostState::Open(Backend& backend, Stream& stream, const TrainState& state) {
  HostState host(backend, stream, StateTensorsOf(state));
  if (backend.memory_is_hosts()) return host;
  int64_t bytes = 0;
  for (const StateTensor& tensor : host.own_) bytes += Aligned(tensor.view.bytes());
  host.memory_ = MapHostMemory(bytes);
  if (host.memory_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("taking ", bytes, " bytes of the host's memory for a copy of the ",
                                                     "state: ", std::strerror(errno), "; use a machine with more"));
  }
  std::byte* place = host.memory_->data();
  for (StateTensor& tensor : host.tensors_) {
    tensor.view.data = place;
    place += Aligned(tensor.view.bytes());
  }
  return host;
}

void HostState::Bring() {
  if (memory_ == nullptr) return;
  for (size_t i = 0; i < own_.size(); ++i) backend_->CopyToHost(*stream_, own_[i].view, tensors_[i].view.data);
  backend_->Synchronize(*stream_);
}

void HostState::Return() {
  if (memory_ == nullptr) return;
  for (size_t i = 0; i < own_.size(); ++i) backend_->CopyFromHost(*stream_, tensors_[i].view.data, own_[i].view);
  backend_->Synchronize(*stream_);
}

}  // namespace shoestring
