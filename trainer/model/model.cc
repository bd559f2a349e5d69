// Chains the layers: each writes its output where the next keeps its input, so nothing is copied between them.
#include "trainer/model/model.h"

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace shoestring {

StageModel::StageModel(Backend& backend, Stream& stream, Arena& arena, const ModelShape& shape,
                       const std::vector<Parameter>& table, const StagePlacement& placement,
                       const RecomputeOptions& recompute, const ExpertExchange& exchange)
    : backend_(backend),
      stream_(stream),
      arena_(arena),
      shape_(shape),
      placement_(placement),
      recompute_(recompute),
      exchange_(exchange),
      softmax_scale_(SoftmaxScale(shape)) {
  CHECK_LE(placement.first_layer + placement.layer_count, shape.layers);
  CHECK_LE(shape.mtp_depth, kMaxMtpDepth);
  ListBlocks();
  weights_ = MakeWeights();
  gradients_ = MakeWeights();
  Bind(table);
  ListPieces();
}

StageModel::Weights StageModel::MakeWeights() const {
  Weights weights;
  weights.blocks.resize(main_blocks());
  if (placement_.last) weights.mtp.resize(shape_.mtp_depth);
  return weights;
}

void StageModel::ListBlocks() {
  const int64_t modules = placement_.last ? shape_.mtp_depth : 0;
  for (int64_t i = 0; i < main_blocks() + modules; ++i) {
    const bool is_main = i < main_blocks();
    const int64_t layer = is_main ? placement_.first_layer + i : shape_.layers + (i - main_blocks());
    BlockInfo info;
    info.is_moe = shape_.is_moe(is_main ? layer : shape_.layers - 1);
    info.prefix = absl::StrCat("model.layers.", layer, ".");
    if (info.is_moe) {
      info.moe_index = moe_blocks_++;
      // Layers before the first with experts have no bias; modules have one only if the last layer has.
      info.bias_index = layer - shape_.dense_layers;
    }
    blocks_.push_back(std::move(info));
  }
}

void StageModel::VisitWeights(Weights& weights, WeightVisitor visit) const {
  if (placement_.first) visit("model.embed_tokens.weight", 0, weights.embedding);
  for (int64_t i = 0; i < main_blocks(); ++i) {
    VisitBlockWeights(shape_, blocks_[i].is_moe, blocks_[i].prefix, weights.blocks[i], visit);
  }
  if (!placement_.last) return;
  for (int64_t k = 0; k < shape_.mtp_depth; ++k) {
    const BlockInfo& info = blocks_[main_blocks() + k];
    const int use = static_cast<int>(k) + 1;
    MtpWeights& module = weights.mtp[k];
    VisitMtpJoinWeights(info.prefix, use, module.join, visit);
    VisitBlockWeights(shape_, info.is_moe, info.prefix, module.block, visit);
    VisitHeadWeights(info.prefix + "shared_head.norm.weight", use, module.head, visit);
  }
  VisitHeadWeights("model.norm.weight", 0, weights.head, visit);
}

void StageModel::Bind(const std::vector<Parameter>& table) {
  absl::flat_hash_map<std::string, int> index;
  for (size_t i = 0; i < table.size(); ++i) index[table[i].name] = static_cast<int>(i);
  std::vector<bool> here(table.size(), false);
  const auto find = [&](const std::string& name) {
    const auto found = index.find(name);
    if (found == index.end()) internal::CheckFailed(__FILE__, __LINE__, "not in the parameter table: " + name);
    return found->second;
  };
  VisitWeights(weights_, [&](const std::string& name, int use, const WeightPlace& place) {
    const int i = find(name);
    here[i] = true;
    weight_bindings_.push_back({i, use, place});
  });
  VisitWeights(gradients_, [&](const std::string& name, int use, const WeightPlace& place) {
    const int i = find(name);
    if (table[i].domain == MeshDomain::kExpert) {
      expert_parameters_[name] = i;
    } else if (table[i].trained) {
      gradient_bindings_.push_back({i, use, place});
    }
  });
  for (size_t i = 0; i < table.size(); ++i) {
    if (here[i]) parameters_.push_back(static_cast<int>(i));
  }
}

void StageModel::BindExperts(int64_t sums) {
  expert_gradients_.reserve(sums);  // bindings point into them
  for (int64_t sum = 0; sum < sums; ++sum) {
    std::vector<Binding>& bindings = expert_bindings_.emplace_back();
    VisitWeights(expert_gradients_.emplace_back(MakeWeights()),
                 [&](const std::string& name, int use, const WeightPlace& place) {
                   const auto found = expert_parameters_.find(name);
                   if (found != expert_parameters_.end()) bindings.push_back({found->second, use, place});
                 });
  }
}

StageModel::Slot StageModel::AllocateSlot() {
  Slot slot;
  for (int64_t i = 0; i < main_blocks(); ++i) {
    slot.blocks.push_back(AllocateBlockSaved(shape_, recompute_, blocks_[i].is_moe, exchange_, arena_));
  }
  if (!placement_.last) return slot;
  slot.head = AllocateHeadSaved(shape_, recompute_, arena_);
  for (int64_t k = 0; k < shape_.mtp_depth; ++k) {
    MtpSaved module;
    module.join = AllocateMtpJoinSaved(shape_, recompute_, arena_);
    module.block = AllocateBlockSaved(shape_, recompute_, blocks_[main_blocks() + k].is_moe, exchange_, arena_);
    module.head = AllocateHeadSaved(shape_, recompute_, arena_);
    slot.mtp.push_back(std::move(module));
  }
  return slot;
}

StageModel::PendingSlot StageModel::AllocatePendingSlot() {
  PendingSlot pending;
  if (placement_.first) pending.embedding = AllocateEmbeddingPending(shape_, arena_);
  for (int64_t i = 0; i < main_blocks(); ++i) {
    pending.blocks.push_back(AllocateBlockPending(shape_, blocks_[i].is_moe, exchange_, arena_));
  }
  if (!placement_.last) return pending;
  pending.head = AllocateHeadPending(shape_, arena_);
  for (int64_t k = 0; k < shape_.mtp_depth; ++k) {
    MtpPending module;
    module.join = AllocateMtpJoinPending(shape_, arena_);
    module.block = AllocateBlockPending(shape_, blocks_[main_blocks() + k].is_moe, exchange_, arena_);
    module.head = AllocateHeadPending(shape_, arena_);
    pending.mtp.push_back(module);
  }
  return pending;
}

void StageModel::Allocate(int slots, int pending_slots, const ExpertSums& expert_sums) {
  CHECK(slots_.empty());
  rope_ = MakeRopeTable(backend_, stream_, arena_, shape_);
  const PrecisionFormats& formats = shape_.formats;
  forward_workspace_ = AllocateBlockWorkspace(shape_, recompute_, formats.dispatch, exchange_, arena_);
  backward_workspace_ = AllocateBlockWorkspace(shape_, recompute_, formats.dispatch_gradient, exchange_, arena_);
  if (shape_.experts > 0) {
    unseen_counts_ = arena_.Allocate(Purpose::kScratch, "unseen_counts", DType::kI64, 1, shape_.experts);
    backend_.Zero(stream_, unseen_counts_);
  }
  int waiting = 0;
  if (moe_blocks_ > 0) {
    gather_ = std::make_unique<ExpertGather>(exchange_, expert_sums.together, expert_sums.lanes_per_sum);
    BindExperts(gather_->sums());
    waiting = static_cast<int>(expert_sums.together) - 1;
    expert_batches_.resize(expert_sums.together);
    expert_targets_.resize(gather_->sums());
  }
  if (placement_.last) token_loss_ = arena_.Allocate(Purpose::kScratch, "token_loss", DType::kF32, 1, shape_.tokens());
  if (moe_blocks_ > 0) {
    balance_loss_ = arena_.Allocate(Purpose::kScratch, "balance_loss", DType::kF32, 1, moe_blocks_ * shape_.sequences);
  }
  slots_.reserve(slots + waiting);
  for (int i = 0; i < slots + waiting; ++i) {
    slots_.push_back(AllocateSlot());
    (i < slots ? slot_of_ : spare_slots_).push_back(i);
  }
  waiting_.reserve(waiting + 1);
  for (int i = 0; i < pending_slots + waiting; ++i) pending_.push_back(AllocatePendingSlot());
}

void StageModel::SetWeights(const std::vector<MutableOperand>& weights) {
  for (const Binding& binding : weight_bindings_) {
    CHECK(static_cast<bool>(weights[binding.parameter]));
    binding.place.Bind(weights[binding.parameter]);
  }
}

void StageModel::SetGradients(const std::vector<std::vector<View>>& gradients) {
  for (const Binding& binding : gradient_bindings_) {
    binding.place.Bind(gradients[binding.parameter][binding.use]);
  }
  if (expert_bindings_.empty()) return;
  for (const Binding& binding : expert_bindings_[0]) {
    if (const View& view = gradients[binding.parameter][binding.use]) binding.place.Bind(view);
  }
}

void StageModel::SetExpertGradients(int64_t sum, const std::vector<std::vector<View>>& gradients) {
  for (const Binding& binding : expert_bindings_[sum]) {
    binding.place.Bind(gradients[binding.parameter][binding.use]);
  }
}

void StageModel::SetStep(const LossScales& scales, const StepAccumulators& accumulators) {
  scales_ = scales;
  accumulators_ = accumulators;
}

StageModel::Action StageModel::MakeAction(const MicroBatchTokens& tokens, int slot, bool training) {
  CHECK_LT(slot, static_cast<int>(slot_of_.size()));
  return {
      {backend_, stream_, arena_, shape_, recompute_, rope_, softmax_scale_, tokens.positions, tokens.first_visible},
      tokens,
      slots_[slot_of_[slot]],
      training,
      {}};
}

const BlockWeights& StageModel::WeightsOf(const Weights& weights, int64_t block) const {
  return block < main_blocks() ? weights.blocks[block] : weights.mtp[block - main_blocks()].block;
}

const BlockSaved& StageModel::SavedOf(const Slot& slot, int64_t block) const {
  return block < main_blocks() ? slot.blocks[block] : slot.mtp[block - main_blocks()].block;
}

const BlockPending& StageModel::PendingOf(const PendingSlot& pending, int64_t block) const {
  return block < main_blocks() ? pending.blocks[block] : pending.mtp[block - main_blocks()].block;
}

BlockRun StageModel::Run(const Action& action, int64_t block, const BlockWorkspace& workspace) const {
  const BlockInfo& info = blocks_[block];
  RouterStatistics statistics;
  if (info.is_moe) {
    statistics.counts = action.training ? accumulators_.expert_counts[info.bias_index] : unseen_counts_;
    statistics.balance_scale = action.training ? scales_.balance : 0;
    if (action.balance_loss) {
      statistics.balance_loss = action.balance_loss.Columns(info.moe_index * shape_.sequences, shape_.sequences);
    }
  }
  return {action.ctx, exchange_, WeightsOf(weights_, block), info.is_moe, statistics, SavedOf(action.slot, block),
          workspace};
}

View StageModel::InputPlace(const Slot& slot, int64_t block, View output) const {
  if (block < main_blocks()) return slot.blocks[block].attention.x;
  return placement_.last ? slot.head.x : output;
}

View StageModel::InputGradientPlace(const PendingSlot& pending, int64_t block, View d_input) const {
  if (block > 0) return pending.blocks[block - 1].d_out;
  return placement_.first ? pending.embedding.d_x : d_input;
}

View StageModel::HiddenBefore(const Slot& slot, int64_t module) const {
  return module == 0 ? slot.head.x : slot.mtp[module - 1].head.x;
}

StageModel::PendingSlot& StageModel::TakePending(Slot& slot) {
  CHECK_EQ(slot.pending, -1);
  for (size_t i = 0; i < pending_.size(); ++i) {
    if (pending_[i].taken) continue;
    pending_[i].taken = true;
    slot.pending = static_cast<int>(i);
    return pending_[i];
  }
  internal::CheckFailed(__FILE__, __LINE__, "more pending weight gradients than Allocate was told");
}

OperationCost StageModel::Cost() const {
  OperationCost cost;
  if (placement_.first) cost += EmbeddingCost(shape_);
  for (const BlockInfo& info : blocks_) cost += BlockCost(shape_, recompute_, info.is_moe, exchange_);
  if (!placement_.last) return cost;
  cost += HeadCost(shape_, recompute_);
  for (int64_t k = 0; k < shape_.mtp_depth; ++k) {
    cost += MtpJoinCost(shape_, recompute_);
    cost += HeadCost(shape_, recompute_);
  }
  return cost;
}

}  // namespace shoestring
