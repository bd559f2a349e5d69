// What a stage does with a micro-batch: forward, input gradients, weight gradients, evaluation.
#include "base/check.h"
#include "trainer/model/model.h"

namespace shoestring {

// Heads come where their input is there: the main one after the last block, a module's after its block; in backward the
// modules come first, so that what a module gives back to the hidden state it joined is there before that state's own
// head adds to it.
void StageModel::ListPieces() {
  const auto add_block = [](std::vector<Piece>& pieces, int64_t block, const auto& parts) {
    for (const BlockPart part : parts) pieces.push_back({Piece::Kind::kBlock, block, part});
  };
  const int64_t modules = placement_.last ? shape_.mtp_depth : 0;
  forward_pieces_.push_back({Piece::Kind::kInput});
  for (int64_t i = 0; i < main_blocks(); ++i) add_block(forward_pieces_, i, kForwardParts);
  if (placement_.last) forward_pieces_.push_back({Piece::Kind::kHead, 0});
  for (int64_t k = 0; k < modules; ++k) {
    forward_pieces_.push_back({Piece::Kind::kJoin, k});
    add_block(forward_pieces_, main_blocks() + k, kForwardParts);
    forward_pieces_.push_back({Piece::Kind::kHead, k + 1});
  }
  forward_pieces_.push_back({Piece::Kind::kBalance});

  if (!placement_.last) backward_pieces_.push_back({Piece::Kind::kInput});
  for (int64_t k = modules - 1; k >= 0; --k) {
    backward_pieces_.push_back({Piece::Kind::kHead, k + 1});
    add_block(backward_pieces_, main_blocks() + k, kBackwardParts);
    backward_pieces_.push_back({Piece::Kind::kJoin, k});
  }
  if (placement_.last) backward_pieces_.push_back({Piece::Kind::kHead, 0});
  for (int64_t i = main_blocks() - 1; i >= 0; --i) add_block(backward_pieces_, i, kBackwardParts);
}

View StageModel::BlockOutput(const PieceRun& run, int64_t block) const {
  if (block < main_blocks()) return InputPlace(run.action.slot, block + 1, run.output);
  return run.action.slot.mtp[block - main_blocks()].head.x;
}

View StageModel::BlockInputGradient(const PieceRun& run, int64_t block) const {
  if (block < main_blocks()) return InputGradientPlace(*run.pending, block, run.output);
  return run.pending->mtp[block - main_blocks()].join.d_out;
}

View StageModel::HiddenGradient(const PieceRun& run, int64_t module) const {
  if (module < 0) return InputGradientPlace(*run.pending, main_blocks(), run.output);
  return run.pending->mtp[module].block.d_out;
}

void StageModel::ForwardMain(const Action& action, ConstView input, View output) {
  const PieceRun run{action, nullptr, {}, input, output};
  for (const Piece& piece : forward_pieces_) {
    if (piece.kind != Piece::Kind::kInput && piece.kind != Piece::Kind::kBlock) break;
    DoForward(run, piece);
  }
}

void StageModel::DoForward(const PieceRun& run, const Piece& piece) {
  const Action& action = run.action;
  switch (piece.kind) {
    case Piece::Kind::kInput: {
      const View x = InputPlace(action.slot, 0, run.output);
      if (placement_.first) {
        EmbeddingForward(action.ctx, weights_.embedding, action.tokens.ids[0], x);
      } else {
        backend_.Copy(stream_, run.input, x);
      }
      break;
    }
    case Piece::Kind::kBlock:
      BlockForward(Run(action, piece.index, forward_workspace_), piece.part, BlockOutput(run, piece.index));
      break;
    case Piece::Kind::kJoin: {
      const MtpSaved& saved = action.slot.mtp[piece.index];
      MtpJoinForward(action.ctx, weights_.mtp[piece.index].join, action.tokens.ids[piece.index + 1],
                     HiddenBefore(action.slot, piece.index), saved.join, saved.block.attention.x);
      break;
    }
    case Piece::Kind::kHead: DoForwardHead(run, piece.index); break;
    case Piece::Kind::kBalance: SumBalance(run); break;
  }
}

void StageModel::DoForwardHead(const PieceRun& run, int64_t head) {
  const Action& action = run.action;
  const HeadWeights& weights = head == 0 ? weights_.head : weights_.mtp[head - 1].head;
  const HeadSaved& saved = head == 0 ? action.slot.head : action.slot.mtp[head - 1].head;
  const double scale = head == 0 ? scales_.main : scales_.mtp;
  HeadForward(action.ctx, weights, action.tokens.targets[head], scale, saved, token_loss_);
  backend_.SumRows(stream_, token_loss_, run.losses.Columns(head, 1));
}

void StageModel::SumBalance(const PieceRun& run) {
  if (!run.action.balance_loss) return;
  for (const BlockInfo& info : blocks_) {
    if (!info.is_moe) continue;
    backend_.SumRows(stream_, balance_loss_.Columns(info.moe_index * shape_.sequences, shape_.sequences),
                     run.losses.Columns(1 + shape_.mtp_depth + info.bias_index, 1));
  }
}

void StageModel::StartForward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) {
  CHECK(!forward_run_.has_value());
  Action action = MakeAction(tokens, slot, /*training=*/true);
  CHECK_EQ(action.slot.pending, -1);
  if (scales_.balance != 0 && moe_blocks_ > 0) action.balance_loss = balance_loss_;
  forward_run_.emplace(PieceRun{
      action, nullptr, accumulators_.losses.Rows(id.lane * accumulators_.waves_per_lane + id.wave, 1), input, output});
}

bool StageModel::StepForward() {
  if (!forward_run_.has_value()) return false;
  if (forward_run_->next == forward_pieces_.size()) {
    forward_run_.reset();
    return false;
  }
  ArenaScope scope(arena_);
  DoForward(*forward_run_, forward_pieces_[forward_run_->next++]);
  return true;
}

void StageModel::Forward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) {
  StartForward(id, tokens, slot, input, output);
  while (StepForward()) {
  }
}

void StageModel::DoBackward(const PieceRun& run, const Piece& piece) {
  const Action& action = run.action;
  switch (piece.kind) {
    case Piece::Kind::kInput: backend_.Copy(stream_, run.input, HiddenGradient(run, -1)); break;
    case Piece::Kind::kBlock:
      BlockBackwardInput(Run(action, piece.index, backward_workspace_), piece.part,
                         PendingOf(*run.pending, piece.index), BlockInputGradient(run, piece.index));
      break;
    case Piece::Kind::kJoin:
      MtpJoinBackwardInput(action.ctx, weights_.mtp[piece.index].join, HiddenBefore(action.slot, piece.index),
                           action.slot.mtp[piece.index].join, run.pending->mtp[piece.index].join,
                           HiddenGradient(run, piece.index - 1));
      break;
    case Piece::Kind::kHead: DoBackwardHead(run, piece.index); break;
    case Piece::Kind::kBalance: break;
  }
}

void StageModel::DoBackwardHead(const PieceRun& run, int64_t head) {
  const Action& action = run.action;
  const View d_hidden = HiddenGradient(run, head - 1);
  const ConstView by_next = head < shape_.mtp_depth ? ConstView(d_hidden) : ConstView();
  if (head == 0) {
    HeadBackwardInput(action.ctx, weights_.head, action.slot.head, run.pending->head, by_next, d_hidden);
    return;
  }
  HeadBackwardInput(action.ctx, weights_.mtp[head - 1].head, action.slot.mtp[head - 1].head,
                    run.pending->mtp[head - 1].head, by_next, d_hidden);
}

void StageModel::StartBackwardInput(MicroBatchId, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                                    View d_input) {
  CHECK(!backward_run_.has_value());
  const Action action = MakeAction(tokens, slot, /*training=*/true);
  PendingSlot& pending = TakePending(action.slot);
  backward_run_.emplace(PieceRun{action, &pending, {}, d_output, d_input});
}

bool StageModel::StepBackwardInput() {
  if (!backward_run_.has_value()) return false;
  if (backward_run_->next == backward_pieces_.size()) {
    backward_run_.reset();
    return false;
  }
  ArenaScope scope(arena_);
  DoBackward(*backward_run_, backward_pieces_[backward_run_->next++]);
  return true;
}

void StageModel::BackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                               View d_input) {
  StartBackwardInput(id, tokens, slot, d_output, d_input);
  while (StepBackwardInput()) {
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
