// The parameter table in Hugging Face's names: which released tensor is which rows of which parameter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/schema/model.pb.h"
#include "kernels/tensor.h"
#include "trainer/params.h"

namespace shoestring {

struct HfTensor {
  std::string name;
  std::vector<int64_t> shape;  // [rows, cols] of a matrix, [cols] of a vector
  size_t parameter = 0;        // index into the table
  int64_t first_row = 0;       // in the parameter's [stack * rows, cols]
  int64_t rows = 0;
  int64_t cols = 0;
  bool is_copy = false;    // the MTP modules' copies of embedding and head: written always, optional when read
  bool keeps_f32 = false;  // in every directory: routing biases
  bool is_linear = false;  // weight of a linear layer: FP8 in an FP8 directory

  int64_t elements() const { return rows * cols; }
};

struct HfTensorOptions {
  bool mtp = true;             // false: without the MTP modules
  bool routing_biases = true;  // false for deepseek_v2, which has none
};

// In the order of the table, copies after the module that they belong to. `table` is BuildParameterTable(model).
std::vector<HfTensor> HfTensorsOf(const config::ModelConfig& model, const std::vector<Parameter>& table,
                                  const HfTensorOptions& options);

// Whether the model is written as deepseek_v2: its gate is a softmax.
bool IsDeepseekV2(const config::ModelConfig& model);

// "X.weight_scale_inv" of "X.weight": the scales that values are multiplied with, whatever the name says.
std::string HfScaleName(const std::string& weight);

// Converts between F32 and BF16 (to nearest, ties to even), or copies. CHECKs that both are one of these.
void ConvertElements(const char* from, DType from_dtype, char* to, DType to_dtype, int64_t elements);

}  // namespace shoestring
