// All that a run changes and a checkpoint keeps: weights, moments, averages, routing biases, position.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"
#include "trainer/model/precision.h"
#include "trainer/params.h"
#include "trainer/schedule.h"

namespace shoestring {

// Of one parameter of the table. Every view is contiguous, [stack * rows, cols].
struct ParameterState {
  View master;   // f32: what the optimizer updates; of the routing bias: the bias itself
  View compute;  // copy in the activation dtype; empty where layers read the master
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
  // Allocates, in table order; contents are undefined until Initialize or a checkpoint is read. `table` must outlive
  // the state.
  TrainState(Arena& arena, const std::vector<Parameter>& table, const StateFormat& format);

  // Step 0: matrices normal with `init_std` (element i of parameter p is Rng(seed, kInit, hash of p's name).Normal(i)),
  // gains 1, biases 0, moments 0, averages equal to the weights. The same on any number of threads.
  void Initialize(Backend& backend, Stream& stream, ThreadPool& pool, uint64_t seed, double init_std);
  // Writes the compute copies anew from the master weights, after these were read from a checkpoint, and the quantised
  // ones from those.
  void RefreshCompute(Backend& backend, Stream& stream);

  const std::vector<Parameter>& table() const { return table_; }
  const std::vector<ParameterState>& parameters() const { return parameters_; }
  const ParameterState& parameter(size_t index) const { return parameters_[index]; }

  RunPosition position;  // of the next step

 private:
  const std::vector<Parameter>& table_;
  std::vector<ParameterState> parameters_;
};

// Stream of a parameter's random numbers: 64-bit FNV-1a of its name (part of the numerics: never change).
uint64_t InitStream(absl::string_view parameter_name);

}  // namespace shoestring
