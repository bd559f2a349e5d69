// All that a run changes and a checkpoint keeps: weights, moments, averages, routing biases, position.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"
#include "trainer/held.h"
#include "trainer/model/precision.h"
#include "trainer/params.h"
#include "trainer/rank_links.h"
#include "trainer/schedule.h"

namespace shoestring {

// Of one parameter held. Views are contiguous: [stack * rows, cols] where the rank keeps all of it, else [1, n] with
// the elements of HeldParameter::kept (empty if there are none); what layers read is always whole.
struct ParameterState {
  View master;  // f32: what the optimizer updates; of the routing bias: the bias itself
  // [stack * rows, cols]: copy in the activation dtype, or, where the master is not all here, in f32; empty where
  // layers read the master.
  View compute;
  // Copy of `compute` as the operand of FP8 products; empty where layers read `compute` or the master.
  MutableOperand quantised;
  View m, v;  // AdamW moments, f32 or bf16; empty if not trained
  View ema;   // f32; empty if not trained or no average is kept

  // What layers read.
  MutableOperand weight() const { return quantised ? quantised : MutableOperand(compute ? compute : master); }
};

struct StateFormat {
  DType activation = DType::kBF16;  // of compute copies; f32: layers read the master
  DType moments = DType::kF32;
  bool ema = false;
  OperandFormat linear = {};  // of the copies of linear layers' weights, if that is quantised
};

// Room for what layers read of a linear layer's weight in `format`; purpose kComputeWeights.
MutableOperand AllocateQuantisedWeight(Arena& arena, const Parameter& parameter, const OperandFormat& format);
// Each matrix of the stack has tiles of its own. `quantised` may be empty: then there is nothing to do.
void QuantiseWeight(Backend& backend, Stream& stream, const Parameter& parameter, ConstView compute,
                    const MutableOperand& quantised);

class TrainState {
 public:
  // Allocates; contents are undefined until Initialize or a checkpoint is read. `held` must outlive the state.
  TrainState(Arena& arena, const HeldTable& held, const StateFormat& format);

  // Step 0: matrices normal with `init_std` (element i of parameter p is Rng(seed, kInit, hash of p's name).Normal(i),
  // counted over the whole stack), gains 1, biases 0, moments 0, averages equal to the weights. The same on any number
  // of threads and ranks. Then call RefreshCompute.
  void Initialize(Backend& backend, Stream& stream, ThreadPool& pool, uint64_t seed, double init_std);
  // Writes the compute copies anew from the master weights, after these were made or read from a checkpoint, and the
  // quantised ones from those. Every rank calls it. Errors: a communicator's.
  absl::Status RefreshCompute(Backend& backend, Stream& stream, const RankLinks& links);
  // The second half of that, after the optimizer has written this rank's part of the copies: gathers the others' parts
  // and quantises.
  absl::Status GatherCompute(Backend& backend, Stream& stream, const RankLinks& links);

  const HeldTable& held() const { return held_; }
  const StateFormat& format() const { return format_; }
  // This rank's own.
  const std::vector<Parameter>& table() const { return held_.parameters(); }
  const std::vector<ParameterState>& parameters() const { return parameters_; }
  const ParameterState& parameter(size_t index) const { return parameters_[index]; }

  // The part of a parameter's compute copy that belongs to the elements kept here, [1, n]; empty if there is none.
  View KeptCopy(size_t index) const;

  RunPosition position;  // of the next step

 private:
  struct FlatCopies {
    View flat;                     // [1, n]
    std::vector<int64_t> offsets;  // where each rank of the group writes
  };
  FlatCopies MakeCopies(Arena& arena, const SharingGroup& group, const char* what, DType dtype, int64_t first,
                        int64_t elements) const;

  const HeldTable& held_;
  const StateFormat format_;
  std::vector<ParameterState> parameters_;
  // Of each group, in its flat order: copies in the activation dtype; and, where masters are cut, in f32 of those
  // parameters that have none. Empty where there are none.
  std::vector<FlatCopies> copies_;
  std::vector<FlatCopies> f32_copies_;
};

// Stream of a parameter's random numbers: 64-bit FNV-1a of its name (part of the numerics: never change).
uint64_t InitStream(absl::string_view parameter_name);

}  // namespace shoestring
