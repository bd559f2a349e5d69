// The tensors of one pass through the model, by name: kept, as a reference; or measured against one.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "trainer/numerics/signal.h"

namespace shoestring {

enum class TensorGroup { kActivation, kGradient, kWeightGradient };
constexpr int kTensorGroups = 3;
const char* Name(TensorGroup group);  // "activations", "gradients", "weight_gradients"

// What a tensor is: "layers.3.mlp.experts.down_proj.out" and where it lies.
struct TensorName {
  std::string name;
  TensorGroup group = TensorGroup::kActivation;
  int layer = 0;  // -1: embedding; the number of layers and MTP modules: the head
};

class TensorSink {
 public:
  virtual ~TensorSink() = default;
  // Tensors in the order in which they are computed. A name that comes again is another piece of the same tensor.
  virtual void Take(const TensorName& name, std::vector<float> values) = 0;
};

// Keeps every tensor, in FP32.
class ReferenceTensors final : public TensorSink {
 public:
  void Take(const TensorName& name, std::vector<float> values) override;
  // Piece `piece` of a tensor; null if there is none.
  const std::vector<float>* Find(const std::string& name, size_t piece) const;

 private:
  std::map<std::string, std::vector<std::vector<float>>> tensors_;
};

// A tensor of a pass against the same one of the reference.
struct MeasuredTensor {
  TensorName id;
  Signal signal;
};

// Measures every tensor, and keeps none. The reference must know them all, in equal sizes.
class MeasuringSink final : public TensorSink {
 public:
  // `reference` must outlive this object.
  explicit MeasuringSink(const ReferenceTensors& reference) : reference_(reference) {}
  void Take(const TensorName& name, std::vector<float> values) override;
  // In the order in which they were computed first.
  const std::vector<MeasuredTensor>& tensors() const { return tensors_; }

 private:
  struct Place {
    size_t index = 0;
    size_t pieces = 0;
  };
  const ReferenceTensors& reference_;
  std::vector<MeasuredTensor> tensors_;
  std::map<std::string, Place> places_;
};

}  // namespace shoestring
