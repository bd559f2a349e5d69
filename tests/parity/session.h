// One model with its training state and samples given by hand: what the parity tool and the golden test run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "configs/schema/run.pb.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "trainer/export/export_hf.h"
#include "trainer/train_loop.h"

namespace shoestring {

class ParitySession {
 public:
  // `samples` [n, sequence_length + 1 + mtp_depth]: the samples of the run in order; after the last comes the first
  // again. Weights are as the config's seed makes them. INVALID_ARGUMENT for samples that are not whole rows, else as
  // Trainer::Create.
  static absl::StatusOr<std::unique_ptr<ParitySession>> Create(const config::RunConfig& config,
                                                               std::vector<int32_t> samples, int threads);
  ~ParitySession();

  // Weights from or to a Hugging Face directory, without MTP modules where the config has none.
  absl::Status ImportWeights(const std::string& directory);
  absl::Status ExportWeights(const std::string& directory, const HfExport& options);

  // Of the first micro-batch: [micro_batch * sequence_length, V] f32.
  absl::StatusOr<std::vector<float>> Logits();

  // By the names of the parameter table, f32; zeros for what is not trained.
  using GradientViews = std::map<std::string, ConstView>;
  // Of the next step's global batch; changes no state. Valid until the next call of any method.
  absl::StatusOr<GradientViews> Gradients();
  // The same in a Hugging Face directory, each under the released name of its weight.
  absl::Status ExportGradients(const std::string& directory);

  // The next step. FAILED_PRECONDITION when the schedule is done.
  absl::StatusOr<const StepResult*> Step();

  const std::vector<Parameter>& table() const { return trainer_->table(); }

 private:
  class Samples;
  ParitySession(const config::RunConfig& config, std::shared_ptr<const std::vector<int32_t>> samples, int threads);
  std::map<std::string, View> Masters();
  // The ids of the first micro-batch's inputs, sequence after sequence.
  std::vector<int32_t> FirstIds() const;

  const config::RunConfig config_;
  const std::shared_ptr<const std::vector<int32_t>> samples_;
  const std::unique_ptr<Backend> backend_;
  std::unique_ptr<Trainer> trainer_;
  std::vector<std::byte> zeros_;  // stands for the gradient of what is not trained
};

}  // namespace shoestring
