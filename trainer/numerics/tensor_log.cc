// Lookup by name and piece.
#include "trainer/numerics/tensor_log.h"

#include <utility>

#include "base/check.h"

namespace shoestring {

const char* Name(TensorGroup group) {
  switch (group) {
    case TensorGroup::kActivation: return "activations";
    case TensorGroup::kGradient: return "gradients";
    case TensorGroup::kWeightGradient: return "weight_gradients";
  }
  return "?";
}

void ReferenceTensors::Take(const TensorName& name, std::vector<float> values) {
  tensors_[name.name].push_back(std::move(values));
}

const std::vector<float>* ReferenceTensors::Find(const std::string& name, size_t piece) const {
  const auto found = tensors_.find(name);
  return found != tensors_.end() && piece < found->second.size() ? &found->second[piece] : nullptr;
}

void MeasuringSink::Take(const TensorName& name, std::vector<float> values) {
  const auto [found, is_new] = places_.try_emplace(name.name, Place{tensors_.size(), 0});
  if (is_new) tensors_.push_back({name, Signal()});
  Place& place = found->second;
  const std::vector<float>* reference = reference_.Find(name.name, place.pieces++);
  if (reference == nullptr) internal::CheckFailed(__FILE__, __LINE__, "not in the reference: " + name.name);
  tensors_[place.index].signal.Add(*reference, values);
}

}  // namespace shoestring
