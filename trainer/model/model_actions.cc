// What a stage does with a micro-batch: forward, input gradients, weight gradients, evaluation.
#include "base/check.h"
#include "trainer/model/model.h"

namespace shoestring {

void StageModel::ForwardBlock(const Action& action, int64_t block, View out) {
  const BlockRun run = Run(action, block, forward_workspace_);
  for (const BlockPart part : kForwardParts) BlockForward(run, part, out);
}

void StageModel::BackwardBlock(const Action& action, const PendingSlot& pending, int64_t block, View dx) {
  const BlockRun run = Run(action, block, backward_workspace_);
  for (const BlockPart part : kBackwardParts) BlockBackwardInput(run, part, PendingOf(pending, block), dx);
}

void StageModel::ForwardMain(const Action& action, ConstView input, View output) {
  const View x = InputPlace(action.slot, 0, output);
  if (placement_.first) {
    EmbeddingForward(action.ctx, weights_.embedding, action.tokens.ids[0], x);
  } else {
    backend_.Copy(stream_, input, x);
  }
  for (int64_t i = 0; i < main_blocks(); ++i) ForwardBlock(action, i, InputPlace(action.slot, i + 1, output));
}

// `losses`: the micro-batch's row of StepAccumulators::losses.
void StageModel::ForwardHeads(const Action& action, View token_loss, View losses) {
  const LayerContext& ctx = action.ctx;
  HeadForward(ctx, weights_.head, action.tokens.targets[0], scales_.main, action.slot.head, token_loss);
  backend_.SumRows(stream_, token_loss, losses.Columns(0, 1));
  for (int64_t k = 0; k < shape_.mtp_depth; ++k) {
    const MtpSaved& saved = action.slot.mtp[k];
    MtpJoinForward(ctx, weights_.mtp[k].join, action.tokens.ids[k + 1], HiddenBefore(action.slot, k), saved.join,
                   saved.block.attention.x);
    ForwardBlock(action, main_blocks() + k, saved.head.x);
    HeadForward(ctx, weights_.mtp[k].head, action.tokens.targets[k + 1], scales_.mtp, saved.head, token_loss);
    backend_.SumRows(stream_, token_loss, losses.Columns(k + 1, 1));
  }
}

void StageModel::Forward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) {
  ArenaScope scope(arena_);
  Action action = MakeAction(tokens, slot, /*training=*/true);
  CHECK_EQ(action.slot.pending, -1);
  const View losses = accumulators_.losses.Rows(id.lane * accumulators_.waves_per_lane + id.wave, 1);
  const bool balances = scales_.balance != 0 && moe_blocks_ > 0;
  if (balances) {
    action.balance_loss = action.ctx.Scratch("balance_loss", DType::kF32, 1, moe_blocks_ * shape_.sequences);
  }
  ForwardMain(action, input, output);
  if (placement_.last) {
    ForwardHeads(action, action.ctx.Scratch("token_loss", DType::kF32, 1, shape_.tokens()), losses);
  }
  if (!balances) return;
  for (const BlockInfo& info : blocks_) {
    if (!info.is_moe) continue;
    backend_.SumRows(stream_, action.balance_loss.Columns(info.moe_index * shape_.sequences, shape_.sequences),
                     losses.Columns(1 + shape_.mtp_depth + info.bias_index, 1));
  }
}

// From the last module to the main head: what a module gives back to the hidden state it joined is there before that
// state's own head adds to it.
void StageModel::BackwardHeads(const Action& action, const PendingSlot& pending, View d_hidden) {
  const LayerContext& ctx = action.ctx;
  for (int64_t k = shape_.mtp_depth - 1; k >= 0; --k) {
    const MtpSaved& saved = action.slot.mtp[k];
    const MtpPending& of_module = pending.mtp[k];
    const View d_module = of_module.block.d_out;
    const ConstView by_next = k + 1 < shape_.mtp_depth ? ConstView(d_module) : ConstView();
    HeadBackwardInput(ctx, weights_.mtp[k].head, saved.head, of_module.head, by_next, d_module);
    BackwardBlock(action, pending, main_blocks() + k, of_module.join.d_out);
    MtpJoinBackwardInput(ctx, weights_.mtp[k].join, HiddenBefore(action.slot, k), saved.join, of_module.join,
                         k == 0 ? d_hidden : pending.mtp[k - 1].block.d_out);
  }
  const ConstView by_modules = shape_.mtp_depth > 0 ? ConstView(d_hidden) : ConstView();
  HeadBackwardInput(ctx, weights_.head, action.slot.head, pending.head, by_modules, d_hidden);
}

void StageModel::BackwardInput(MicroBatchId, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                               View d_input) {
  ArenaScope scope(arena_);
  const Action action = MakeAction(tokens, slot, /*training=*/true);
  const PendingSlot& pending = TakePending(action.slot);
  const View d_last = InputGradientPlace(pending, main_blocks(), d_input);
  if (placement_.last) {
    BackwardHeads(action, pending, d_last);
  } else {
    backend_.Copy(stream_, d_output, d_last);
  }
  for (int64_t i = main_blocks() - 1; i >= 0; --i) {
    BackwardBlock(action, pending, i, InputGradientPlace(pending, i, d_input));
  }
}

void StageModel::BackwardWeight(MicroBatchId, const MicroBatchTokens& tokens, int slot) {
  ArenaScope scope(arena_);
  const Action action = MakeAction(tokens, slot, /*training=*/true);
  CHECK_GE(action.slot.pending, 0);
  PendingSlot& pending = pending_[action.slot.pending];
  for (size_t i = 0; i < blocks_.size(); ++i) {
    BlockBackwardWeight(Run(action, i, backward_workspace_), PendingOf(pending, i), WeightsOf(gradients_, i));
  }
  if (placement_.first) {
    EmbeddingBackwardWeight(action.ctx, tokens.ids[0], pending.embedding, gradients_.embedding);
  }
  if (placement_.last) {
    HeadBackwardWeight(action.ctx, weights_.head, action.slot.head, pending.head, gradients_.head);
    for (int64_t k = 0; k < shape_.mtp_depth; ++k) {
      const MtpSaved& saved = action.slot.mtp[k];
      MtpJoinBackwardWeight(action.ctx, weights_.mtp[k].join, tokens.ids[k + 1], HiddenBefore(action.slot, k),
                            saved.join, pending.mtp[k].join, gradients_.mtp[k].join);
      HeadBackwardWeight(action.ctx, weights_.mtp[k].head, saved.head, pending.mtp[k].head, gradients_.mtp[k].head);
    }
  }
  waiting_.push_back(slot_of_[slot]);
  if (waiting_.size() < expert_batches_.size()) {
    slot_of_[slot] = spare_slots_.back();
    spare_slots_.pop_back();
    return;
  }
  SumExperts(action);
  waiting_.pop_back();  // the last one keeps its number
  spare_slots_.insert(spare_slots_.end(), waiting_.begin(), waiting_.end());
  waiting_.clear();
}

void StageModel::SumExperts(const Action& action) {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!blocks_[i].is_moe) continue;
    for (size_t b = 0; b < waiting_.size(); ++b) {
      const Slot& slot = slots_[waiting_[b]];
      expert_batches_[b] = {&SavedOf(slot, i).moe, &PendingOf(pending_[slot.pending], i).moe};
    }
    for (size_t sum = 0; sum < expert_targets_.size(); ++sum) {
      expert_targets_[sum] = &WeightsOf(expert_gradients_[sum], i).moe.experts;
    }
    gather_->BackwardWeight(action.ctx, expert_batches_, expert_targets_);
  }
  for (int waiting : waiting_) {
    Slot& slot = slots_[waiting];
    pending_[slot.pending].taken = false;
    slot.pending = -1;
  }
}

void StageModel::Evaluate(const MicroBatchTokens& tokens, int slot, ConstView input, View output, View loss) {
  ArenaScope scope(arena_);
  const Action action = MakeAction(tokens, slot, /*training=*/false);
  CHECK_EQ(action.slot.pending, -1);
  ForwardMain(action, input, output);
  if (placement_.last) HeadLoss(action.ctx, weights_.head, tokens.targets[0], action.slot.head, loss);
}

void StageModel::Logits(const MicroBatchTokens& tokens, int slot, int64_t row, View logits) {
  CHECK(placement_.first && placement_.last);
  ArenaScope scope(arena_);
  const Action action = MakeAction(tokens, slot, /*training=*/false);
  CHECK_EQ(action.slot.pending, -1);
  ForwardMain(action, {}, {});
  HeadLogits(action.ctx, weights_.head, row, action.slot.head, logits);
}

}  // namespace shoestring
