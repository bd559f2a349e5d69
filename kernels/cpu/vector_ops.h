// The table of vector loops behind the CPU's memory-bound operations: one table for each instruction-set level.
//
// Everything here is plain old data and raw pointers: the files of a level are compiled with that level's flags and
// must not share inline functions with the rest of the program. Every loop works on a range of rows (or columns, or
// elements) and gives bits that do not depend on how the whole was cut into ranges.
#pragma once

#include <cstdint>

namespace shoestring {

enum class Isa : int;  // kernels/cpu/cpu_features.h

// Rows of f32 or bf16 that start `stride` elements apart; data == nullptr: the tensor was left out.
template <typename Pointer>
struct BasicRows {
  Pointer data = nullptr;
  int64_t stride = 0;
  bool bf16 = false;
};
using Rows = BasicRows<void*>;
using ConstRows = BasicRows<const void*>;

// Rows of a quantised tensor. Tiles are `tile_cols` wide; which row of scales belongs to a row is said by the caller.
enum class CodeFormat : int { kE4M3, kE5M2, kE5M6 };
template <typename Byte, typename Float>
struct BasicCodedRows {
  Byte* codes = nullptr;
  int64_t stride = 0;  // in bytes
  CodeFormat format = CodeFormat::kE4M3;
  Float* scales = nullptr;
  int64_t scale_stride = 0;
  int64_t tile_cols = 1;
};
using CodedRows = BasicCodedRows<uint8_t, float>;
using ConstCodedRows = BasicCodedRows<const uint8_t, const float>;

// The same fields as the arguments in kernels/operations.h, unpacked. "act" tensors of one call share a dtype.
struct AddLoop {
  ConstRows a, b;
  Rows y;
  int64_t cols = 0;
};
struct CopyLoop {
  ConstRows x;
  Rows y;
  int64_t cols = 0;
};
struct RmsNormLoop {
  ConstRows x, delta;
  Rows sum;
  ConstRows gain;  // one row
  double eps = 0;
  Rows y;
  float* inverse_rms = nullptr;
  int64_t cols = 0;
};
struct RmsNormBackwardInputLoop {
  ConstRows dy, x, gain;
  const float* inverse_rms = nullptr;
  ConstRows add;
  Rows dx;
  int64_t cols = 0;
};
struct RmsNormBackwardWeightLoop {
  ConstRows dy, x;
  const float* inverse_rms = nullptr;
  float* d_gain = nullptr;
  int64_t rows = 0;
  int64_t block_rows = 0;  // rows are summed in blocks of that many, which are then added in order
};
struct RopeLoop {
  Rows x;
  int64_t heads = 0, head_stride = 0, offset = 0, pairs = 0;
  const float* cos_table = nullptr;
  const float* sin_table = nullptr;
  int64_t table_stride = 0;
  const int32_t* positions = nullptr;
  float sign = 1;  // -1 rotates back
};
struct SwiGluLoop {
  ConstRows gate_up;
  const float* row_weight = nullptr;
  Rows y;
  int64_t width = 0;  // F
};
struct SwiGluBackwardLoop {
  ConstRows gate_up;
  const float* row_weight = nullptr;
  ConstRows dy;
  Rows d_gate_up;
  float* d_row_weight = nullptr;
  int64_t width = 0;
};
struct ScoresLoop {
  const float* logits = nullptr;
  int64_t logits_stride = 0;
  float* scores = nullptr;
  int64_t scores_stride = 0;
  int64_t experts = 0;
  bool softmax = false;
};
struct GateBackwardLoop {
  const float* scores = nullptr;
  int64_t scores_stride = 0;
  const int32_t* experts = nullptr;
  int64_t experts_stride = 0;
  const float* d_weights = nullptr;
  int64_t d_weights_stride = 0;
  const float* d_scores = nullptr;  // null: none
  int64_t d_scores_stride = 0;
  float* d_logits = nullptr;
  int64_t d_logits_stride = 0;
  int64_t expert_count = 0;
  int64_t chosen = 0;
  bool softmax = false;
  bool renormalize = true;
  double scaling = 1;
};
struct BalanceLoop {
  const float* scores = nullptr;
  int64_t scores_stride = 0;
  const float* fractions = nullptr;  // f of every expert
  float* d_scores = nullptr;         // null: no gradient wanted
  int64_t d_scores_stride = 0;
  int64_t experts = 0;
  double gradient_scale = 0;  // loss_scale / S
};
struct CombineLoop {
  ConstRows y;
  const int32_t* slot_row = nullptr;
  int64_t slot_row_stride = 0;
  const int32_t* experts = nullptr;
  int64_t experts_stride = 0;
  int64_t chosen = 0;
  int64_t experts_per_group = 1;
  ConstRows base;
  Rows out;
  int64_t cols = 0;
};
struct EmbeddingBackwardLoop {
  const int32_t* ids = nullptr;
  int64_t tokens = 0;
  ConstRows dx;
  float* d_table = nullptr;
  int64_t d_table_stride = 0;
};
struct CrossEntropyLoop {
  ConstRows logits;
  const int32_t* targets = nullptr;
  double grad_scale = 0;
  float* loss = nullptr;
  Rows d_logits;
  int64_t cols = 0;
};
struct AdamWLoop {
  float* master = nullptr;
  const float* grad = nullptr;
  Rows m, v, compute;  // flat: stride unused
  float grad_scale = 1, beta1 = 0, beta2 = 0, one_minus_beta1 = 0, one_minus_beta2 = 0;
  float m_correction = 1, v_correction = 1;  // 1 / (1 - beta^step)
  float eps = 0, learning_rate = 0, weight_decay = 0;
};

struct QuantiseLoop {
  ConstRows x;           // or none, and
  ConstCodedRows coded;  // tiles of one row
  CodedRows y;
  int64_t cols = 0;
  int64_t tile_rows = 1;  // of y
  bool power_of_two = false;
};
struct DequantiseLoop {
  ConstCodedRows x;
  Rows y;
  int64_t cols = 0;
};

struct VectorOps {
  void (*add)(const AddLoop& loop, int64_t first_row, int64_t end_row);
  void (*copy)(const CopyLoop& loop, int64_t first_row, int64_t end_row);
  void (*rms_norm)(const RmsNormLoop& loop, int64_t first_row, int64_t end_row);
  void (*rms_norm_backward_input)(const RmsNormBackwardInputLoop& loop, int64_t first_row, int64_t end_row);
  void (*rms_norm_backward_weight)(const RmsNormBackwardWeightLoop& loop, int64_t first_col, int64_t end_col);
  void (*rope)(const RopeLoop& loop, int64_t first_row, int64_t end_row);
  void (*swiglu)(const SwiGluLoop& loop, int64_t first_row, int64_t end_row);
  void (*swiglu_backward)(const SwiGluBackwardLoop& loop, int64_t first_row, int64_t end_row);
  void (*scores)(const ScoresLoop& loop, int64_t first_row, int64_t end_row);
  void (*gate_backward)(const GateBackwardLoop& loop, int64_t first_row, int64_t end_row);
  // Returns the sum over the rows, in order, of sum_i f_i score_i / sum_j score_j; writes d_scores.
  double (*balance)(const BalanceLoop& loop, int64_t first_row, int64_t end_row);
  void (*combine)(const CombineLoop& loop, int64_t first_token, int64_t end_token);
  void (*embedding_backward)(const EmbeddingBackwardLoop& loop, int64_t first_col, int64_t end_col);
  void (*cross_entropy)(const CrossEntropyLoop& loop, int64_t first_row, int64_t end_row);
  void (*adamw)(const AdamWLoop& loop, int64_t first, int64_t end);
  // ema = decay * ema + (1 - decay) * weights
  void (*ema)(const float* weights, float decay, float one_minus_decay, float* ema, int64_t count);
  // Sums in f64 over sixteen lanes, lane = index mod 16, then as a tree: 8, 4, 2, 1 apart.
  double (*squared_norm)(const float* x, int64_t count);
  // Tiles are cut from first_row on; the scales of the first ones are in row `scale_row`.
  void (*quantise)(const QuantiseLoop& loop, int64_t first_row, int64_t end_row, int64_t scale_row);
  void (*dequantise)(const DequantiseLoop& loop, int64_t row, int64_t scale_row);
};

const VectorOps& PortableVectorOps();
const VectorOps& Avx2VectorOps();
const VectorOps& Avx512VectorOps();
// The table of the highest level at or below `isa`; CHECKs that this machine can run it.
const VectorOps& VectorOpsOf(Isa isa);

}  // namespace shoestring
