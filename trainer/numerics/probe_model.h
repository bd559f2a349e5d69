// A model for one pass over one micro-batch, forward and backward, in the precision that is asked for.
#pragma once

#include <memory>
#include <vector>

#include "kernels/arena.h"
#include "parallel/expert_exchange.h"
#include "trainer/accumulate.h"
#include "trainer/batch.h"
#include "trainer/model/model.h"
#include "trainer/numerics/probe_backend.h"
#include "trainer/params.h"
#include "trainer/schedule.h"

namespace shoestring {

// Sizes and weights that passes share.
struct ProbeInputs {
  const std::vector<Parameter>& table;
  const std::vector<View>& masters;  // f32, one a parameter: weights, gains, routing biases
  const StepPlan& plan;              // what scales losses
  const BatchShape& batch_shape;     // max_sequences are those of the micro-batch
};

struct ProbeLosses {
  double main = 0;     // cross-entropy, nats a token of the micro-batch
  double mtp = 0;      // mean over MTP modules, not weighted
  double balance = 0;  // sum of the micro-batch, as it enters the gradient
};

// Norms and MLA up-projections are kept and outputs of SwiGLU made anew whatever the recipe's memory choices, so that
// the same operations run in every precision: that changes no bit.
class ProbeModel {
 public:
  // Allocates copies of the weights, gradients, activations. `inputs` and what they refer to outlive the model.
  ProbeModel(Backend& backend, Arena& arena, const ModelShape& shape, const ProbeInputs& inputs);

  // Tells the probe what is where.
  void NameTensors(ProbeBackend& probe) const;
  // Makes what layers read of the masters.
  void RefreshWeights();
  // One pass. With a probe, which must be the model's backend, it is told the phases.
  void Run(const HostBatch& batch, ProbeBackend* probe);

  ProbeLosses losses() const;
  // The gradient of the last Run; the view of a parameter that is not trained is empty.
  ConstView gradient(size_t parameter) const;

 private:
  MutableOperand AllocateWeight(Arena& arena, size_t parameter);

  Backend& backend_;
  const ModelShape shape_;
  const ProbeInputs inputs_;
  const std::unique_ptr<Stream> stream_;
  const std::unique_ptr<ExpertExchange> exchange_;
  DeviceBatch batch_;
  StageModel model_;
  GradientSet gradients_;
  std::vector<View> copies_;             // in act; empty where layers read the master
  std::vector<MutableOperand> weights_;  // what layers read
  StepAccumulators accumulators_;
  std::vector<double> host_losses_;
};

}  // namespace shoestring
