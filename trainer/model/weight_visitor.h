// How the weights of a layer find their parameters: each layer names its own.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "kernels/tensor.h"

namespace shoestring {

// Where a layer keeps one of its weights: a plain view, or the operand of a linear layer, which may be quantised.
class WeightPlace {
 public:
  WeightPlace(View& view) : view_(&view) {}                     // implicit on purpose
  WeightPlace(MutableOperand& operand) : operand_(&operand) {}  // implicit on purpose

  // A plain view takes values only.
  void Bind(const MutableOperand& weight) const {
    if (operand_ != nullptr) {
      *operand_ = weight;
    } else {
      CHECK(!weight.quantised());
      *view_ = weight.values;
    }
  }

 private:
  View* view_ = nullptr;
  MutableOperand* operand_ = nullptr;
};

// Called once for each weight of a layer: the name in the parameter table, which use of the parameter it is (0 but for
// the embedding and head of MTP module k, where it is k), and the place to be bound.
using WeightVisitor = absl::FunctionRef<void(const std::string& name, int use, const WeightPlace& place)>;

}  // namespace shoestring
