// What a pipeline rank runs: a stage of the model, as the executor sees it. The executor knows no layers, a stage knows
// no ranks.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace shoestring {

// Which micro-batch: the `wave`-th of lane `lane` (see docs/numerics.md).
struct MicroBatchId {
  int64_t lane = 0;
  int64_t wave = 0;
};

// The token ids of one micro-batch on the device, T = sequences * sequence_length. Index 0 is the main model; index k
// is MTP module k, which reads the token k places ahead and predicts the one after it.
constexpr int kMaxMtpDepth = 16;
struct MicroBatchTokens {
  ConstView ids[kMaxMtpDepth + 1];      // [1, T] i32
  ConstView targets[kMaxMtpDepth + 1];  // [1, T] i32; -1: no target
  ConstView positions;                  // [1, T] i32, from 0 in each sequence
  ConstView first_visible;              // [1, T] i32, or empty (see AttentionArgs)
};

// A contiguous run of layers. `slot` names the place for the activations of a live micro-batch; the executor hands out
// the slots [0, live micro-batches) and takes each back after its last use.
class Stage {
 public:
  virtual ~Stage() = default;

  // Reads `input` [T, D] (empty on the first stage, which reads the token ids), writes `output` [T, D] (empty on the
  // last stage, which computes the losses).
  virtual void Forward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) = 0;
  // Gradients of activations only. `d_output` is empty on the last stage, `d_input` on the first. What weight gradients
  // still need stays in the slot.
  virtual void BackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                             View d_input) = 0;
  // Adds the micro-batch's weight gradients to the accumulators of its lane.
  virtual void BackwardWeight(MicroBatchId id, const MicroBatchTokens& tokens, int slot) = 0;

  // The first two in pieces, so that a forward and a backward can be interleaved: a step does the next piece, and is
  // false when there was none. What is passed must stay in place until then; one forward and one backward are under way
  // at most. A stage that has no pieces does everything at the start.
  virtual void StartForward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) {
    Forward(id, tokens, slot, input, output);
  }
  virtual bool StepForward() { return false; }
  virtual void StartBackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                                  View d_input) {
    BackwardInput(id, tokens, slot, d_output, d_input);
  }
  virtual bool StepBackwardInput() { return false; }
};

}  // namespace shoestring
