// Bodies: a forward-only model in an arena of its own, and sampling.
#include "launch/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/rng.h"
#include "base/status_macros.h"
#include "configs/load.h"
#include "configs/resolve.h"
#include "configs/validate.h"
#include "kernels/arena.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/shape_backend.h"
#include "parallel/local_exchange.h"
#include "trainer/batch.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/memory_block.h"
#include "trainer/model/model.h"
#include "trainer/model/moe.h"
#include "trainer/params.h"
#include "trainer/support.h"
#include "trainer/train_state.h"

namespace shoestring {
namespace {

// One sequence of the last phase's length.
ModelShape ShapeOf(const config::RunConfig& config) {
  const config::PhaseSettings settings = config::ResolvePhase(config, config.train().phase_size() - 1);
  return MakeModelShape(config.model(), settings.yarn, config.precision(), 1, settings.phase->sequence_length());
}

// As checkpoints say it (docs/formats/checkpoint.md).
std::vector<int64_t> TensorShape(const Parameter& parameter) {
  if (parameter.stack > 1) return {parameter.stack, parameter.rows, parameter.cols};
  if (parameter.is_matrix()) return {parameter.rows, parameter.cols};
  return {parameter.cols};
}

// Weights, model and buffers, allocated alike in an arena that measures and in a real one.
class ForwardModel {
 public:
  // `table` must outlive the model.
  ForwardModel(Backend& backend, Arena& arena, const config::RunConfig& config, const ModelShape& shape,
               const std::vector<Parameter>& table)
      : table_(table),
        backend_(backend),
        stream_(backend.MakeStream()),
        shape_(shape),
        exchange_(MakeLocalExchange(MakeExchangeShape(shape))),
        model_(backend, *stream_, arena, shape, table, WholeModel(shape), MakeRecomputeOptions(config.recompute()),
               *exchange_) {
    for (const Parameter& parameter : table) AllocateWeight(arena, parameter);
    model_.Allocate(1, 1);
    SetWeights();
    ids_ = arena.Allocate(Purpose::kData, "token ids", DType::kI32, 1, shape.tokens());
    positions_ = arena.Allocate(Purpose::kData, "positions", DType::kI32, 1, shape.tokens());
    if (config.data().document_mask()) {
      first_visible_ = arena.Allocate(Purpose::kData, "first visible", DType::kI32, 1, shape.tokens());
    }
    logits_ = arena.Allocate(Purpose::kData, "logits", DType::kF32, 1, shape.vocab);
  }

  void ComputeLogits(int64_t row) {
    MicroBatchTokens tokens;
    for (int64_t k = 0; k <= shape_.mtp_depth; ++k) tokens.ids[k] = tokens.targets[k] = ids_;
    tokens.positions = positions_;
    tokens.first_visible = first_visible_;
    model_.Logits(tokens, 0, row, logits_);
    backend_.Synchronize(*stream_);
  }
  // Brings the weights that were read into the form that layers read.
  void RefreshWeights() {
    for (size_t i = 0; i < masters_.size(); ++i) {
      if (weights_[i].data != masters_[i].data) backend_.Copy(*stream_, masters_[i], weights_[i]);
      QuantiseWeight(backend_, *stream_, table_[i], weights_[i], quantised_[i]);
    }
    std::vector<int32_t> positions(shape_.tokens());
    std::iota(positions.begin(), positions.end(), 0);
    backend_.CopyFromHost(*stream_, positions.data(), positions_);
    backend_.Synchronize(*stream_);
  }
  void SetIds(const std::vector<int32_t>& ids, int32_t eos_id) {
    backend_.CopyFromHost(*stream_, ids.data(), ids_);
    std::vector<int32_t> first_visible(ids.size());
    WriteFirstVisible(ids.data(), static_cast<int64_t>(ids.size()), eos_id, first_visible.data());
    if (first_visible_) backend_.CopyFromHost(*stream_, first_visible.data(), first_visible_);
    backend_.Synchronize(*stream_);
  }

  const std::vector<View>& masters() const { return masters_; }
  absl::Span<const float> logits() const { return {logits_.as<float>(), static_cast<size_t>(logits_.cols)}; }

 private:
  void AllocateWeight(Arena& arena, const Parameter& parameter) {
    const int64_t rows = parameter.stack * parameter.rows;
    masters_.push_back(arena.Allocate(Purpose::kMasterWeights, parameter.name, DType::kF32, rows, parameter.cols));
    const bool copy = parameter.compute_copy && shape_.act != DType::kF32;
    weights_.push_back(copy ? arena.Allocate(Purpose::kComputeWeights, parameter.name, shape_.act, rows, parameter.cols)
                            : masters_.back());
    const bool quantised = parameter.linear && shape_.formats.weight.quantised();
    quantised_.push_back(quantised ? AllocateQuantisedWeight(arena, parameter, shape_.formats.weight)
                                   : MutableOperand());
  }
  void SetWeights() {
    std::vector<MutableOperand> weights;
    for (size_t i = 0; i < weights_.size(); ++i) {
      weights.push_back(quantised_[i] ? quantised_[i] : MutableOperand(weights_[i]));
    }
    model_.SetWeights(weights);
  }

  const std::vector<Parameter>& table_;
  Backend& backend_;
  std::unique_ptr<Stream> stream_;
  const ModelShape shape_;
  std::unique_ptr<ExpertExchange> exchange_;
  StageModel model_;
  std::vector<View> masters_;
  std::vector<View> weights_;
  std::vector<MutableOperand> quantised_;  // of linear layers in the FP8 mode; else empty
  View ids_;
  View positions_;
  View first_visible_;  // empty: every earlier token
  View logits_;
};

absl::StatusOr<config::RunConfig> ConfigOf(const OpenedCheckpoint& checkpoint, bool ema) {
  ASSIGN_OR_RETURN(config::LoadedConfig loaded, config::ParseConfig(checkpoint.header().config_textproto(),
                                                                    absl::StrCat(checkpoint.path, ": its config")));
  RETURN_IF_ERROR(config::Validate(loaded.config, loaded.locations));
  RETURN_IF_ERROR(CheckSupported(loaded.config));
  if (ema && !loaded.config.train().has_ema()) {
    return absl::FailedPreconditionError(
        absl::StrCat(checkpoint.path, ": the run kept no moving average (train.ema); leave --ema out"));
  }
  return std::move(loaded.config);
}

}  // namespace

int32_t SampleToken(absl::Span<const float> logits, const SamplingOptions& options, uint64_t index) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  // Equal logits in the order of their ids, so that the choice is a function of the logits alone.
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (options.temperature == 0) return order.front();
  if (options.top_k > 0 && options.top_k < static_cast<int64_t>(order.size())) order.resize(options.top_k);
  std::vector<double> cumulative;
  double sum = 0;
  for (const int32_t id : order) {
    sum += std::exp((static_cast<double>(logits[id]) - logits[order.front()]) / options.temperature);
    cumulative.push_back(sum);
  }
  const double point = Rng(options.seed, RngPurpose::kSample, 0).Uniform(index) * sum;
  const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), point);
  return order[std::min<size_t>(found - cumulative.begin(), order.size() - 1)];
}

// Members in the order of their needs.
struct Generator::Parts {
  Parts(std::unique_ptr<Backend> made, std::vector<Parameter> table, MemoryBlock block, const config::RunConfig& config)
      : backend(std::move(made)),
        table(std::move(table)),
        shape(ShapeOf(config)),
        memory(std::move(block)),
        arena(memory.data(), memory.size_bytes()),
        model(*backend, arena, config, shape, this->table) {}

  std::unique_ptr<Backend> backend;
  const std::vector<Parameter> table;
  const ModelShape shape;
  MemoryBlock memory;
  Arena arena;
  ForwardModel model;
  std::vector<int32_t> window;
};

Generator::Generator(config::RunConfig config, std::unique_ptr<Parts> parts)
    : config_(std::move(config)), parts_(std::move(parts)) {}
Generator::~Generator() = default;

absl::StatusOr<std::unique_ptr<Generator>> Generator::Load(FileSystem& fs, const OpenedCheckpoint& checkpoint, bool ema,
                                                           int threads) {
  ASSIGN_OR_RETURN(config::RunConfig config, ConfigOf(checkpoint, ema));
  std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = threads});
  std::vector<Parameter> table = BuildParameterTable(config.model());
  Arena measuring = Arena::Measuring();
  const std::unique_ptr<Backend> shapes = MakeShapeBackend(*backend);
  ForwardModel(*shapes, measuring, config, ShapeOf(config), table).ComputeLogits(0);
  ASSIGN_OR_RETURN(MemoryBlock memory, MemoryBlock::Map(measuring.high_water_bytes()));
  auto parts = std::make_unique<Parts>(std::move(backend), std::move(table), std::move(memory), config);

  std::vector<StateTensor> tensors;
  for (size_t i = 0; i < parts->table.size(); ++i) {
    const Parameter& parameter = parts->table[i];
    const StateKind kind = !parameter.trained ? StateKind::kBias : (ema ? StateKind::kEma : StateKind::kWeights);
    tensors.push_back({kind, parameter.name, TensorShape(parameter), parts->model.masters()[i]});
  }
  RETURN_IF_ERROR(ReadState(fs, checkpoint, tensors, Coverage::kPart));
  parts->model.RefreshWeights();
  return std::unique_ptr<Generator>(new Generator(std::move(config), std::move(parts)));
}

absl::Span<const float> Generator::NextLogits(absl::Span<const int32_t> ids) {
  CHECK(!ids.empty());
  const size_t length = static_cast<size_t>(parts_->shape.sequence_length);
  if (ids.size() > length) ids = ids.subspan(ids.size() - length);
  // What stands behind the last token is never looked at: attention is causal, and no token displaces another.
  parts_->window.assign(length, config_.model().eos_id());
  std::copy(ids.begin(), ids.end(), parts_->window.begin());
  parts_->model.SetIds(parts_->window, config_.model().eos_id());
  parts_->model.ComputeLogits(static_cast<int64_t>(ids.size()) - 1);
  return parts_->model.logits();
}

}  // namespace shoestring
