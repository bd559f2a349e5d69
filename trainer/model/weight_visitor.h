// How the views of a layer's weights find their parameters: each layer names its own.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "kernels/tensor.h"

namespace shoestring {

// Called once for each weight of a layer: the name in the parameter table, which use of the parameter it is (0 but for
// the embedding and head of MTP module k, where it is k), and the view to be bound.
using WeightVisitor = absl::FunctionRef<void(const std::string& name, int use, View& view)>;

}  // namespace shoestring
