// The arguments of the backend's operations: shapes, dtypes and meaning of every tensor that an operation touches.
//
// "act" is bf16, or f32 in the FP32 mode. All reductions run in FP32 (or wider) in an order that depends on shapes
// only.
#pragma once

#include <cstdint>

#include "kernels/limits.h"
#include "kernels/tensor.h"

namespace shoestring {

enum class GemmLayout { kNT, kNN, kTN };

// How products of FP8 operands are summed along the contracted dimension (V3 report, section 3.3.2). Blocks of
// `interval` elements are summed first, without scales; then acc = fma(sum, scale_a * scale_b, acc) in f32, blocks in
// order, from +0. Tiles are a multiple of the interval along the contracted dimension, or end with it. A group's blocks
// start at its segment.
struct Fp8Accumulation {
  int64_t interval = 128;  // at most kMaxPromotionInterval
  // Inside a block: false: f32, in the order of k. true: as Hopper's tensor cores do (docs/numerics.md, "Short
  // accumulator").
  bool hopper = false;
};

// y = x in y's format: a tile's scale is its largest magnitude / the format's largest value, in f32 (1 if that is 0),
// rounded up to a power of two if y.power_of_two says so; a code is x / scale, rounded to nearest even, saturating.
// NaN stays NaN; values of x that are infinite make their tile's scale infinite and themselves NaN.
struct QuantizeArgs {
  Operand x;          // [R, C] act; or quantised with tiles of one row: what its codes stand for, in f32
  MutableOperand y;   // [R, C] e4m3, e5m2 or e5m6, with scales; e5m6 in tiles of one row; tile and C even
  int64_t stack = 1;  // x is a stack of so many equal matrices; tiles start anew at each
  // With groups: tiles start anew at each segment, scales of tiles higher than one row lie as SegmentScaleRow says, and
  // rows that do not exist are not touched.
  Segments segments = {};
};

// y = x * rsqrt(mean(x^2) + eps) * gain, over the columns, in f32. With `delta`: sum = x + delta is rounded to act
// first, stored, and normalised in the place of x (residual add fused with the norm that follows it).
struct RmsNormArgs {
  ConstView x;      // [T, D] act
  ConstView delta;  // [T, D] act, or empty
  View sum;         // [T, D] act; written when delta is given; may alias x
  ConstView gain;   // [1, D] act or f32
  double eps = 0;
  MutableOperand y;  // [T, D] act, rows may be strided; or act and then quantised as Quantize does, in tiles of one row
  View inverse_rms;  // [1, T] f32, or empty when nobody needs it
};

// dx = add + gradient of RmsNorm's y with respect to its (summed) input.
struct RmsNormBackwardInputArgs {
  ConstView dy;           // [T, D] act; rows may be strided
  ConstView x;            // [T, D] act: what was normalised
  ConstView gain;         // [1, D]
  ConstView inverse_rms;  // [1, T] f32
  ConstView add;          // [T, D] act, or empty: gradient that arrives by the residual path
  View dx;                // [T, D] act; assigned; may alias add or dy
};

// d_gain += sum over rows of dy * x * inverse_rms, in fixed blocks of 256 rows added in order.
struct RmsNormBackwardWeightArgs {
  ConstView dy;           // [T, D] act
  ConstView x;            // [T, D] act
  ConstView inverse_rms;  // [1, T] f32
  View d_gain;            // [1, D] f32; accumulated
};

// Rotates interleaved pairs (2j, 2j+1) of `heads` stripes of columns: stripe h covers columns
// [h * head_stride + offset, ... + 2 * pairs). Row t sits at position positions[t]. In place. Inverse: backward.
struct RopeArgs {
  View x;  // [T, >= heads * head_stride] act
  int64_t heads = 1;
  int64_t head_stride = 0;
  int64_t offset = 0;
  ConstView cos_table;  // [max_position, pairs] f32
  ConstView sin_table;  // [max_position, pairs] f32
  ConstView positions;  // [1, T] i32
  bool inverse = false;
};

struct AttentionShape {
  int64_t tokens = 0;           // T = sequences * sequence_length
  int64_t sequence_length = 0;  // S
  int64_t heads = 0;            // H
  int64_t nope_dim = 0;         // per head, from the latent
  int64_t rope_dim = 0;         // decoupled, keys shared by all heads
  int64_t value_dim = 0;
};

// Causal multi-head latent attention core (DeepSeek-V3 report, equations 9-10), softmax in f32.
struct AttentionArgs {
  AttentionShape shape;
  double scale = 0;         // multiplies q.k
  ConstView q;              // [T, H*(nope+rope)] act, rope part already rotated
  ConstView kv;             // [T, H*(nope+value)] act: a head's key part, then its value
  ConstView k_rope;         // [T, rope] act, rotated; rows may be strided
  ConstView first_visible;  // [1, T] i32: first position of the sequence that a token may see, or empty (0)
};

struct AttentionBackwardArgs {
  ConstView out;          // [T, H*value] act, from forward
  ConstView log_sum_exp;  // [T, H] f32, from forward
  ConstView d_out;        // [T, H*value] act
  View d_q;               // as q; assigned
  View d_kv;              // as kv; assigned
  View d_k_rope;          // [T, rope] act; assigned; the sum over heads in head order, rounded once; may be strided
};

// y = silu(gate) * up * row_weight. The gate weight of an expert multiplies here, before the down projection.
struct SwiGluArgs {
  ConstView gate_up;     // [R, 2F] act: gate in columns [0, F), up in [F, 2F)
  ConstView row_weight;  // [1, R] f32, or empty (1)
  ConstView offsets;     // i32 [1, groups+1] or empty: only rows below the last offset exist
};

enum class GateKind { kSigmoid, kSoftmax };
enum class GroupScore { kTop2Sum, kMax };

// Affinities and choice of experts (DeepSeek-V3 report, equations 12-16, and section 2.1.2).
struct GateArgs {
  ConstView logits;  // [T, E] f32
  ConstView bias;    // [1, E] f32: steers the choice, never the weight; or empty (0)
  GateKind kind = GateKind::kSigmoid;
  GroupScore group_score = GroupScore::kTop2Sum;
  int64_t groups = 1;       // E is divided into equal neighbouring groups
  int64_t groups_kept = 1;  // groups of a token, by score of biased affinities; ties: lower group
  int64_t chosen = 1;       // K; ties: lower expert
  bool renormalize = true;  // divide by the sum of the chosen scores (+1e-20)
  double scaling = 1.0;
};
struct GateResult {
  View scores;   // [T, E] f32: sigmoid, or softmax over E
  View experts;  // [T, K] i32, ascending by expert id
  View weights;  // [T, K] f32
  View counts;   // [1, E] i64; accumulated: tokens that chose each expert
};
// d_logits = gradient through weights (choice held fixed) + d_scores through the gate function; assigned.
struct GateBackwardArgs {
  ConstView scores;     // [T, E] f32
  ConstView experts;    // [T, K] i32
  ConstView d_weights;  // [T, K] f32
  ConstView d_scores;   // [T, E] f32, or empty: from the balance loss
  View d_logits;        // [T, E] f32; may alias d_scores
};

// Sequence-wise balance loss (DeepSeek-V3 report, equations 17-20): per sequence, alpha * sum_i f_i P_i with
// f_i = E/(K S) * #{t: score_i,t among the K largest unbiased scores}, P_i = mean_t score_i,t / sum_j score_j,t.
// Ties: lower expert. f is held constant in the gradient.
struct SequenceBalanceArgs {
  ConstView scores;             // [T, E] f32
  int64_t sequence_length = 0;  // S divides T
  int64_t chosen = 1;           // K
  double loss_scale = 0;        // alpha / sequences of the global batch
  View loss;                    // [1, T/S] f32; assigned: loss_scale * sum_i f_i P_i of each sequence
  View d_scores;                // [T, E] f32, assigned; or empty when no gradient is wanted
};

// From choices to rows: the (token, slot) pairs are sorted by expert, then token. Row r belongs to one pair.
struct PlanDispatchArgs {
  ConstView experts;  // [T, K] i32
  int64_t expert_count = 0;
  View offsets;    // [1, E+1] i32
  View row_token;  // [1, T*K] i32: token of each row
  View row_slot;   // [1, T*K] i32: token * K + slot of each row
  View slot_row;   // [T, K] i32: row of each pair
};

// GatherRows: y[r] = x[row_token[r]] for rows below the last offset; of a quantised x codes and scales are moved as
// they are, and its tiles have one row. GatherChosen: row_values[r] = chosen_values.flat[row_slot[r]]; ScatterChosen is
// its inverse (f32).
//
// CombineRows: out[t] = base[t] + sum over the token's slots of y[slot_row[t, k]]: inside a routing group in f32 in
// expert order, one rounding to act a group, groups added in f32 in order, then base, one last rounding. A slot whose
// row is -1 brings nothing.
struct CombineArgs {
  ConstView y;         // [R, D] act
  ConstView slot_row;  // [T, K] i32: a row, or -1
  ConstView experts;   // [T, K] i32, ascending
  int64_t experts_per_group = 1;
  ConstView base;  // [T, D] act, or empty (0)
};

// Softmax cross-entropy. loss[t] = log sum exp(logits[t]) - logits[t, target], 0 where target is -1.
// d_logits[t] = grad_scale * (softmax - onehot), 0 where target is -1; skipped when empty.
struct CrossEntropyArgs {
  ConstView logits;   // [T, V] f32
  ConstView targets;  // [1, T] i32
  double grad_scale = 0;
  View loss;      // [1, T] f32
  View d_logits;  // [T, V] act or f32; may alias logits when the dtypes are equal
};

// Embedding: x[t] = table[ids[t]]. EmbeddingBackward: d_table[ids[t]] += dx[t] in token order (f32).
// SumRows: sum[0] = f64 sum of an f32 vector [1, n]: blocks of 2^16 are added in order; inside a block the CPU adds in
// index order, a GPU as its threads lie.
// SquaredNorm: block_sums[b] = f64 sum of squares of elements [b*2^20, (b+1)*2^20) of a contiguous f32 tensor.

// Decoupled weight decay (Loshchilov and Hutter 2019): one pass reads the gradient, updates moments and master weight,
// and writes the compute copy. g = grad * grad_scale; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
// w -= lr * (m_hat / (sqrt(v_hat) + eps) + decay * w). m and v are f32 or bf16 (rounded to nearest even on store, the
// update uses the unrounded ones). All contiguous, same element count.
struct AdamWArgs {
  View master;     // f32
  ConstView grad;  // f32
  View m;          // f32 or bf16
  View v;          // f32 or bf16
  View compute;    // act copy, or empty
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0;
  double grad_scale = 1;  // clipping
  int64_t step = 1;       // from 1; for bias correction
};
// Ema: ema = decay * ema + (1 - decay) * weights; f32.

constexpr int64_t kNormBlockElements = int64_t{1} << 20;
inline int64_t NormBlocks(int64_t elements) { return (elements + kNormBlockElements - 1) / kNormBlockElements; }

}  // namespace shoestring
