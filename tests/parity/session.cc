// Bodies: the trainer's own calls, with samples from memory.
#include "tests/parity/session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "trainer/batch.h"
#include "trainer/export/import_hf.h"
#include "trainer/export/weight_source.h"
#include "trainer/train_step.h"

namespace shoestring {
namespace {

int64_t RowTokens(const config::RunConfig& config) {
  return config.train().phase(0).sequence_length() + 1 + config.model().mtp_depth();
}

}  // namespace

class ParitySession::Samples final : public TokenSource {
 public:
  Samples(std::shared_ptr<const std::vector<int32_t>> samples, int64_t row_tokens)
      : samples_(std::move(samples)), row_tokens_(row_tokens) {}
  int64_t row_tokens() const override { return row_tokens_; }
  absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) override {
    const int64_t count = static_cast<int64_t>(samples_->size()) / row_tokens_;
    for (int64_t s = 0; s < samples; ++s) {
      const int32_t* row = samples_->data() + (first_sample + s) % count * row_tokens_;
      std::copy(row, row + row_tokens_, tokens + s * row_tokens_);
    }
    return absl::OkStatus();
  }
  std::string Description() const override { return "samples in memory"; }

 private:
  const std::shared_ptr<const std::vector<int32_t>> samples_;
  const int64_t row_tokens_;
};

ParitySession::ParitySession(const config::RunConfig& config, std::shared_ptr<const std::vector<int32_t>> samples,
                             int threads)
    : config_(config), samples_(std::move(samples)), backend_(MakeCpuBackend({.threads = threads})) {}

ParitySession::~ParitySession() = default;

absl::StatusOr<std::unique_ptr<ParitySession>> ParitySession::Create(const config::RunConfig& config,
                                                                     std::vector<int32_t> samples, int threads) {
  const int64_t row = RowTokens(config);
  if (samples.empty() || samples.size() % static_cast<size_t>(row) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(samples.size(), " ids are not whole rows of ", row));
  }
  auto shared = std::make_shared<const std::vector<int32_t>>(std::move(samples));
  std::unique_ptr<ParitySession> session(new ParitySession(config, shared, threads));
  TrainData data;
  data.training = [shared, row](int) -> absl::StatusOr<std::unique_ptr<TokenSource>> {
    return std::make_unique<Samples>(shared, row);
  };
  ASSIGN_OR_RETURN(session->trainer_,
                   Trainer::Create(config, data, *session->backend_, RealClock(), {.threads = threads}));
  return session;
}

std::map<std::string, View> ParitySession::Masters() {
  std::map<std::string, View> masters;
  for (size_t i = 0; i < table().size(); ++i) {
    masters[table()[i].name] = trainer_->state().parameter(i).master;
  }
  return masters;
}

absl::Status ParitySession::ImportWeights(const std::string& directory) {
  const HfImport options = {.mtp = config_.model().mtp_depth() > 0};
  RETURN_IF_ERROR(ImportHf(PosixFileSystem(), directory, config_.model(), Masters(), options).status());
  RETURN_IF_ERROR(trainer_->RefreshCompute());
  backend_->Synchronize(trainer_->stream());
  return absl::OkStatus();
}

absl::Status ParitySession::ExportWeights(const std::string& directory, const HfExport& options) {
  const std::map<std::string, View> masters = Masters();
  MemoryWeights weights({masters.begin(), masters.end()});
  return ExportHf(PosixFileSystem(), directory, config_.model(), weights, options).status();
}

std::vector<int32_t> ParitySession::FirstIds() const {
  const int64_t length = config_.train().phase(0).sequence_length(), row = RowTokens(config_);
  std::vector<int32_t> ids;
  for (int64_t s = 0; s < config_.train().phase(0).micro_batch(); ++s) {
    const auto first = samples_->begin() + s * row % static_cast<int64_t>(samples_->size());
    ids.insert(ids.end(), first, first + length);
  }
  return ids;
}

absl::StatusOr<std::vector<float>> ParitySession::Logits() {
  ASSIGN_OR_RETURN(TrainStep * step, trainer_->CurrentStep());
  std::vector<int32_t> ids = FirstIds(), positions(ids.size());
  const auto tokens = static_cast<int64_t>(ids.size());
  for (int64_t t = 0; t < tokens; ++t) {
    positions[t] = static_cast<int32_t>(t % config_.train().phase(0).sequence_length());
  }
  MicroBatchTokens batch;
  const View id_view(reinterpret_cast<std::byte*>(ids.data()), DType::kI32, 1, tokens);
  for (int64_t k = 0; k <= config_.model().mtp_depth(); ++k) batch.ids[k] = batch.targets[k] = id_view;
  batch.positions = View(reinterpret_cast<std::byte*>(positions.data()), DType::kI32, 1, tokens);
  const int64_t vocab = config_.model().vocab_size();
  std::vector<float> logits(tokens * vocab);
  for (int64_t t = 0; t < tokens; ++t) {
    const View row(reinterpret_cast<std::byte*>(logits.data() + t * vocab), DType::kF32, 1, vocab);
    step->model().Logits(batch, 0, t, row);
  }
  backend_->Synchronize(trainer_->stream());
  return logits;
}

absl::StatusOr<ParitySession::GradientViews> ParitySession::Gradients() {
  ASSIGN_OR_RETURN(TrainStep * step, trainer_->CurrentStep());
  const StepPlan plan = trainer_->schedule().PlanStep(trainer_->state().position);
  Samples source(samples_, RowTokens(config_));
  HostBatch batch;
  RETURN_IF_ERROR(PrepareBatch(source, step->batch_shape(), SampleRuns::One(plan.first_sample, plan.sequences), batch));
  StepResult result;
  RETURN_IF_ERROR(step->ComputeGradients(plan, batch, result));
  GradientViews gradients;
  for (size_t i = 0; i < table().size(); ++i) {
    const Parameter& parameter = table()[i];
    if (parameter.trained) {
      gradients[parameter.name] = step->gradients().kept[i].Reshape(parameter.stack * parameter.rows, parameter.cols);
      continue;
    }
    zeros_.resize(std::max<size_t>(zeros_.size(), parameter.elements() * SizeOf(DType::kF32)));
  }
  for (const Parameter& parameter : table()) {
    if (parameter.trained) continue;
    gradients[parameter.name] = View(zeros_.data(), DType::kF32, parameter.stack * parameter.rows, parameter.cols);
  }
  return gradients;
}

absl::Status ParitySession::ExportGradients(const std::string& directory) {
  ASSIGN_OR_RETURN(GradientViews gradients, Gradients());
  MemoryWeights source(std::move(gradients));
  return ExportHf(PosixFileSystem(), directory, config_.model(), source, {.dtype = DType::kF32}).status();
}

absl::StatusOr<const StepResult*> ParitySession::Step() {
  if (trainer_->schedule().Done(trainer_->state().position)) {
    return absl::FailedPreconditionError("the config's schedule is done");
  }
  return trainer_->Step();
}

}  // namespace shoestring
