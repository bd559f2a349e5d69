// A tiny whole model with its weights, gradients, tokens and accumulators, for the tests of StageModel.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/shape_backend.h"
#include "parallel/local_exchange.h"
#include "tests/trainer/model/harness.h"
#include "trainer/model/model.h"
#include "trainer/train_state.h"

namespace shoestring {

struct BenchOptions {
  config::ModelConfig model = TinyModel();
  config::PrecisionConfig precision = Precision(config::PrecisionConfig::FP32);
  int threads = 1;
  RecomputeOptions recompute = {};
  bool documents = false;  // the second sequence holds two documents that do not see each other
};

constexpr int kBenchSlots = 2;
constexpr LossScales kBenchScales = {1.0 / 12, 0.3 / 12, 0.05};

// Micro-batch w of the tests; every depth reads the token k places ahead and predicts the one after it.
inline model_reference::Tokens BenchTokens(const ModelShape& s, int wave, bool documents) {
  const Rng rng(11, RngPurpose::kTest, wave);
  model_reference::Tokens tokens;
  const int64_t length = s.sequence_length + s.mtp_depth + 1;
  for (int64_t k = 0; k <= s.mtp_depth; ++k) {
    tokens.ids.emplace_back();
    tokens.targets.emplace_back();
    for (int64_t t = 0; t < s.tokens(); ++t) {
      const int64_t at = t / s.sequence_length * length + t % s.sequence_length + k;
      tokens.ids.back().push_back(static_cast<int>(rng.Below(at, s.vocab)));
      const bool has_target = t != 3;
      tokens.targets.back().push_back(has_target ? static_cast<int>(rng.Below(at + 1, s.vocab)) : -1);
    }
  }
  for (int64_t t = 0; documents && t < s.tokens(); ++t)
    tokens.first_visible.push_back(t >= s.sequence_length + 4 ? 4 : 0);
  return tokens;
}

class ModelBench {
 public:
  explicit ModelBench(const BenchOptions& options)
      : options(options),
        shape(TinyShape(options.model, options.precision)),
        table(BuildParameterTable(options.model)),
        reference(shape, RandomWeights(table)),
        backend(MakeCpuBackend({.threads = options.threads})),
        stream(backend->MakeStream()),
        arena(memory_.data(), memory_.bytes()),
        exchange(MakeLocalExchange(MakeExchangeShape(shape))) {
    for (const Parameter& p : table) {
      const Matrix& value = reference.w.at(p.name);
      weights.push_back(PutWeight(p, value));
      gradients.emplace_back();
      for (int use = 0; p.trained && use < p.uses; ++use) {
        gradients.back().push_back(Allocate(DType::kF32, value.rows, value.cols));
        backend->Zero(*stream, gradients.back().back());
      }
      if (!p.trained) accumulators.expert_counts.push_back(Zeros(DType::kI64, 1, shape.experts));
    }
    accumulators.losses = Zeros(DType::kF64, 4, LossColumns(shape));
    accumulators.waves_per_lane = 2;
    for (int wave = 0; wave < 2; ++wave) {
      host_tokens.push_back(BenchTokens(shape, wave, options.documents));
      tokens.push_back(Upload(host_tokens.back()));
    }
    if (!options.documents) return;
    for (int wave = 0; wave < 2; ++wave) tokens[wave].first_visible = PutIds(host_tokens[wave].first_visible);
  }

  View Allocate(DType dtype, int64_t rows, int64_t cols) {
    return arena.Allocate(Purpose::kData, "test", dtype, rows, cols);
  }
  // As a train state holds it.
  MutableOperand PutWeight(const Parameter& p, const Matrix& value) {
    const View copy = Allocate(p.compute_copy ? shape.act : DType::kF32, value.rows, value.cols);
    FromMatrix(value, copy);
    if (!p.linear || !shape.formats.weight.quantised()) return copy;
    const MutableOperand quantised = AllocateQuantisedWeight(arena, p, shape.formats.weight);
    QuantiseWeight(*backend, *stream, p, copy, quantised);
    return quantised;
  }
  View Zeros(DType dtype, int64_t rows, int64_t cols) {
    const View x = Allocate(dtype, rows, cols);
    backend->Zero(*stream, x);
    return x;
  }
  View PutIds(const std::vector<int>& ids) {
    const View view = Allocate(DType::kI32, 1, static_cast<int64_t>(ids.size()));
    std::copy(ids.begin(), ids.end(), view.as<int32_t>());
    return view;
  }
  std::unique_ptr<StageModel> MakeStage(const StagePlacement& placement, int pending_slots = 1) {
    auto model =
        std::make_unique<StageModel>(*backend, *stream, arena, shape, table, placement, options.recompute, *exchange);
    model->Allocate(kBenchSlots, pending_slots);
    model->SetWeights(weights);
    model->SetGradients(gradients);
    model->SetStep(kBenchScales, accumulators);
    return model;
  }
  // Two micro-batches in lane 1, one after the other.
  void TrainBoth(StageModel& model) {
    for (int wave = 0; wave < 2; ++wave) {
      model.Forward({1, wave}, tokens[wave], wave, {}, {});
      model.BackwardInput({1, wave}, tokens[wave], wave, {}, {});
      model.BackwardWeight({1, wave}, tokens[wave], wave);
    }
  }
  // The scaled loss of both micro-batches by the definition, with the choices in `routings` held fixed once made.
  double ReferenceLoss(std::vector<std::map<std::string, model_reference::Routing>>& routings) const {
    double loss = 0;
    for (int wave = 0; wave < 2; ++wave) {
      const auto result = reference.Run(host_tokens[wave], routings[wave]);
      for (size_t k = 0; k < result.loss.size(); ++k) {
        for (const double l : result.loss[k]) loss += (k == 0 ? kBenchScales.main : kBenchScales.mtp) * l;
      }
      loss += kBenchScales.balance * result.balance;
    }
    return loss;
  }
  // All gradients, uses not added, then losses and counts: bytes to compare.
  std::string Bits() const {
    std::string bits;
    const auto append = [&](ConstView x) { bits.append(reinterpret_cast<const char*>(x.data), x.bytes()); };
    for (const auto& uses : gradients) {
      for (const View& view : uses) append(view);
    }
    append(accumulators.losses.Rows(2, 2));
    for (const View& counts : accumulators.expert_counts) append(counts);
    return bits;
  }

  const BenchOptions options;

 private:
  TestMemory memory_{int64_t{1} << 23};

  MicroBatchTokens Upload(const model_reference::Tokens& host) {
    MicroBatchTokens batch;
    for (size_t k = 0; k < host.ids.size(); ++k) {
      batch.ids[k] = PutIds(host.ids[k]);
      batch.targets[k] = PutIds(host.targets[k]);
    }
    std::vector<int> positions;
    for (int64_t t = 0; t < shape.tokens(); ++t) positions.push_back(static_cast<int>(t % shape.sequence_length));
    batch.positions = PutIds(positions);
    return batch;
  }

 public:
  const ModelShape shape;
  const std::vector<Parameter> table;
  model_reference::Model reference;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream;
  Arena arena;
  std::unique_ptr<ExpertExchange> exchange;
  std::vector<MutableOperand> weights;
  std::vector<std::vector<View>> gradients;
  StepAccumulators accumulators;
  std::vector<model_reference::Tokens> host_tokens;
  std::vector<MicroBatchTokens> tokens;
};

}  // namespace shoestring
