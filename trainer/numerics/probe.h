// The numerics probe: one set of weights, one micro-batch, forward and backward in FP32 and in each of several
// precisions; every tensor against its FP32 self (docs/numerics_probe.md).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "configs/schema/run.pb.h"
#include "trainer/batch.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/numerics/presets.h"
#include "trainer/numerics/probe_model.h"

namespace shoestring {

struct ProbeRequest {
  config::RunConfig config;  // of the weights, validated; its own precision and layout do not matter
  StepPlan plan;             // of the step whose first micro-batch is looked at: phase, sizes, loss weights
  std::vector<PrecisionPreset> presets;
  // Tokens go where each precision sends them, not where the reference did; rows of experts are not compared then.
  bool own_routing = false;
  int threads = 1;
};

struct PresetResult {
  PrecisionPreset preset;
  ProbeLosses losses;
  std::vector<MeasuredTensor> tensors;        // in the order of computation; weight gradients last, in table order
  std::vector<MeasuredQuantiser> quantisers;  // in the order of computation; weights first
  // (token, gate) pairs, and those of them in which the token's own choice is not the reference's. Tokens arrive at a
  // gate as the routing before it made them.
  int64_t routed_tokens = 0;
  int64_t differing_tokens = 0;
};

struct ProbeResult {
  int64_t sequences = 0;
  int64_t sequence_length = 0;
  int64_t first_sample = 0;
  bool own_routing = false;
  int main_layers = 0;
  int mtp_modules = 0;
  ProbeLosses reference;
  std::vector<PresetResult> presets;
};

// `config`, which the validator found right, as one rank runs it on the CPU in `preset`. INVALID_ARGUMENT, a line a
// problem, naming the preset, if that precision is not legal or this build cannot compute it.
absl::StatusOr<config::RunConfig> ConfigInPrecision(const config::RunConfig& config, const PrecisionPreset& preset);

// The batch that `plan` begins with: one micro-batch.
BatchShape ProbeBatchShape(const config::RunConfig& config, const StepPlan& plan);

// `read_weights` fills master weights and routing biases; its errors come back as they are. RESOURCE_EXHAUSTED when
// memory does not suffice. INVALID_ARGUMENT as ConfigInPrecision, before anything is computed.
absl::StatusOr<ProbeResult> RunProbe(const ProbeRequest& request, const HostBatch& batch,
                                     absl::FunctionRef<absl::Status(const std::vector<StateTensor>&)> read_weights);

}  // namespace shoestring
