// In which number formats the tensors of the model are multiplied, kept and sent, as plain data that layers read.
#pragma once

#include "configs/schema/precision.pb.h"
#include "kernels/arena.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring {

// How a tensor is held; `tile` and `power_of_two` mean something for quantised types only.
struct OperandFormat {
  DType dtype = DType::kF32;
  Tile tile;
  bool power_of_two = false;

  bool quantised() const { return IsQuantised(dtype); }
  friend bool operator==(const OperandFormat& a, const OperandFormat& b) {
    return a.dtype == b.dtype && a.tile.rows == b.tile.rows && a.tile.cols == b.tile.cols &&
           a.power_of_two == b.power_of_two;
  }
};

// Every choice of the FP8 recipe (V3 report, sections 3.3.1 to 3.3.3; config::Fp8Recipe). In the BF16 and FP32 modes
// all formats are the activation dtype, so that layers are written once: what is not quantised is passed on as it is.
struct PrecisionFormats {
  OperandFormat activation;               // inputs of linear layers in forward
  OperandFormat weight;                   // of linear layers
  OperandFormat gradient;                 // gradients of linear layers' outputs, in the input gradient
  OperandFormat activation_by_tokens;     // inputs regrouped along the tokens, for the weight gradient
  OperandFormat gradient_by_tokens;       // gradients regrouped likewise
  OperandFormat cached_linear_input;      // what the weight gradient knows of an input
  OperandFormat cached_attention_output;  // what backward knows of the attention core's output
  OperandFormat cached_swiglu_input;      // what backward knows of the experts' gate and up projections
  OperandFormat dispatch;                 // tokens on their way to experts
  OperandFormat dispatch_gradient;        // gradients of results on their way to experts
  Fp8Accumulation accumulation;

  // Forward reads the same that backward does, so that a producer may write an input once, as it is kept.
  bool input_made_as_kept() const { return !cached_linear_input.quantised() || cached_linear_input == activation; }
};

// `act`: the activation dtype. Formats of a recipe that the validator found right.
PrecisionFormats MakePrecisionFormats(const config::PrecisionConfig& precision, DType act);

// Values and, for a quantised format, the scales of their tiles: of a matrix, of a stack of `stack` equal matrices, or,
// with `groups`, of a matrix whose tiles start anew at each of so many segments of rows.
MutableOperand AllocateOperand(Arena& arena, Purpose purpose, absl::string_view name, const OperandFormat& format,
                               int64_t rows, int64_t cols, int64_t stack = 1, int64_t groups = 0);

// Bytes of one row with its scales, where each row has its own.
int64_t RowBytes(const OperandFormat& format, int64_t cols);

}  // namespace shoestring
