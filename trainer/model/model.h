// The model as a pipeline stage: a contiguous run of layers, with the embedding in the first stage and the heads and
// MTP modules in the last. One rank has one stage that is both.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "parallel/expert_exchange.h"
#include "parallel/stage.h"
#include "trainer/model/block.h"
#include "trainer/model/context.h"
#include "trainer/model/embedding.h"
#include "trainer/model/expert_sums.h"
#include "trainer/model/head.h"
#include "trainer/model/mtp.h"
#include "trainer/params.h"

namespace shoestring {

// The whole model as one stage.
inline StagePlacement WholeModel(const ModelShape& shape) { return {0, shape.layers, true, true}; }

// Factors that make a step's gradient a mean over the global batch; known before the step from the config.
struct LossScales {
  double main = 0;     // 1 / tokens of the global batch
  double mtp = 0;      // lambda / (D * tokens of the global batch), for each module
  double balance = 0;  // alpha / sequences of the global batch; 0: no balance loss
};

// Where a step's sums go. All device memory belongs to the caller.
struct StepAccumulators {
  // [1, E] i64 each, accumulated; in the order of the routing biases in the parameter table. Layers that are not in
  // this stage are not touched.
  std::vector<View> expert_counts;
  // [micro-batches, LossColumns(shape)] f64; a micro-batch assigns row lane * waves_per_lane + wave: column 0 the sum
  // over tokens of the main cross-entropy, columns 1..D that of MTP module k (both not scaled; last stage only), then
  // for each layer with experts, in the order of `expert_counts`, its balance losses (scaled by LossScales::balance).
  // Columns of other stages, and without balance loss those of layers, are not touched.
  View losses;
  int64_t waves_per_lane = 0;
};
inline int64_t LossColumns(const ModelShape& shape) { return 1 + shape.mtp_depth + shape.expert_layers(); }

// How the gradients of the experts' weights are summed over lanes (docs/numerics.md, "Order of sums", rule 2).
struct ExpertSums {
  int64_t together = 1;       // micro-batches of this rank, one of each lane of a block, that a sum waits for
  int64_t lanes_per_sum = 1;  // G: lanes whose rows one grouped product takes; divides together * exchange lanes
};

// Construct, Allocate, SetWeights; then for each step SetStep, and SetGradients before the weight gradients of a lane.
// Nothing is allocated on the heap by Forward and the backwards. Runs unchanged on ShapeBackend with a measuring arena.
class StageModel : public Stage {
 public:
  // All references but `table` must outlive the model. `exchange` is made for MakeExchangeShape(shape). `arena` is
  // where everything is allocated, scratch too.
  StageModel(Backend& backend, Stream& stream, Arena& arena, const ModelShape& shape,
             const std::vector<Parameter>& table, const StagePlacement& placement, const RecomputeOptions& recompute,
             const ExpertExchange& exchange);
  StageModel(const StageModel&) = delete;
  StageModel& operator=(const StageModel&) = delete;

  // Tables, workspaces, `slots` live micro-batches, and room for the pending weight gradients of `pending_slots` of
  // them (1 when each input gradient is followed by its weight gradient); and what sums of expert gradients wait for.
  // Once, before anything runs.
  void Allocate(int slots, int pending_slots, const ExpertSums& expert_sums = {});

  // One operand a parameter, in table order and shape [stack * rows, cols]: act copies, f32 masters where the table
  // says compute_copy = false (gains, routing biases), and what AllocateWeight makes where the table says `linear` and
  // the shape's weight format is quantised. Those of parameters that are not in this stage may be empty.
  void SetWeights(const std::vector<MutableOperand>& weights);
  // [parameter of the table][use], f32, shapes as weights: the accumulators of one lane. Those of other stages, and all
  // of routing biases, may be absent. Swapped before the weight gradients of another lane. Those of experts are of the
  // first sum; if they are absent, they stay as SetExpertGradients has them.
  void SetGradients(const std::vector<std::vector<View>>& gradients);
  // The same of the experts alone, for the `sum`-th sum that a block of lanes feeds.
  void SetExpertGradients(int64_t sum, const std::vector<std::vector<View>>& gradients);
  // For all micro-batches of a step.
  void SetStep(const LossScales& scales, const StepAccumulators& accumulators);

  void Forward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) override;
  void BackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                     View d_input) override;
  void StartForward(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView input, View output) override;
  bool StepForward() override;
  void StartBackwardInput(MicroBatchId id, const MicroBatchTokens& tokens, int slot, ConstView d_output,
                          View d_input) override;
  bool StepBackwardInput() override;
  void BackwardWeight(MicroBatchId id, const MicroBatchTokens& tokens, int slot) override;

  // Forward only; leaves gradients, counts and losses alone, overwrites the slot. `input` and `output` as in Forward.
  // loss [1, T] f32, of the last stage: the main model's cross-entropy of each token.
  void Evaluate(const MicroBatchTokens& tokens, int slot, ConstView input, View output, View loss);
  // logits [1, V] f32 of one token of the micro-batch, of a stage that is the whole model; for generation.
  void Logits(const MicroBatchTokens& tokens, int slot, int64_t row, View logits);

  // Sums of expert gradients that a block of lanes feeds; 0 without experts in this stage.
  int64_t expert_sums() const { return static_cast<int64_t>(expert_gradients_.size()); }
  const ModelShape& shape() const { return shape_; }
  const StagePlacement& placement() const { return placement_; }
  // Parameters of this stage, as indices into the table, each once.
  const std::vector<int>& parameters() const { return parameters_; }
  // Of one micro-batch in this stage, all layers together.
  OperationCost Cost() const;

 private:
  // One MTP module; block and head as in the main model.
  struct MtpWeights {
    MtpJoinWeights join;
    BlockWeights block;
    HeadWeights head;
  };
  struct Weights {
    View embedding;
    std::vector<BlockWeights> blocks;
    std::vector<MtpWeights> mtp;
    HeadWeights head;
  };
  struct MtpSaved {
    MtpJoinSaved join;
    BlockSaved block;
    HeadSaved head;
  };
  struct Slot {
    std::vector<BlockSaved> blocks;
    HeadSaved head;  // last stage
    std::vector<MtpSaved> mtp;
    int pending = -1;  // index into pending_, between input and weight gradient
  };
  struct MtpPending {
    MtpJoinPending join;
    BlockPending block;
    HeadPending head;
  };
  struct PendingSlot {
    EmbeddingPending embedding;  // first stage
    std::vector<BlockPending> blocks;
    HeadPending head;  // last stage
    std::vector<MtpPending> mtp;
    bool taken = false;
  };
  // What one action carries from layer to layer.
  struct Action {
    LayerContext ctx;
    MicroBatchTokens tokens;
    Slot& slot;
    bool training;      // false: nothing is counted that a step would see
    View balance_loss;  // [1, MoE blocks * sequences] f32; empty without balance loss
  };
  // An action is a list of pieces, so that those of two can be interleaved; between pieces nothing is in scratch.
  struct Piece {
    enum class Kind {
      kInput,    // embedding, or the tensor that comes from the neighbouring stage
      kBlock,    // part `part` of block `index`
      kJoin,     // of MTP module `index`
      kHead,     // the main model's (index 0), or that of MTP module index - 1
      kBalance,  // adds up the balance losses
    };
    Kind kind;
    int64_t index = 0;
    BlockPart part = BlockPart::kAttention;
  };
  // An action under way.
  struct PieceRun {
    Action action;
    PendingSlot* pending;  // of a backward
    View losses;           // of a forward: the micro-batch's row of StepAccumulators::losses
    ConstView input;       // of a forward; of a backward: the gradient of the output
    View output;           // of a forward; of a backward: the gradient of the input
    size_t next = 0;       // piece
  };
  // A block of this stage: main layers first, then those of the MTP modules.
  struct BlockInfo {
    bool is_moe = false;
    int moe_index = 0;        // among this stage's blocks with experts
    int64_t bias_index = -1;  // among the table's routing biases
    std::string prefix;       // of its parameters' names
  };
  struct Binding {
    int64_t parameter;
    int use;
    WeightPlace place;  // in weights_, gradients_ or expert_gradients_
  };

  void ListBlocks();
  Weights MakeWeights() const;
  void Bind(const std::vector<Parameter>& table);
  void BindExperts(int64_t sums);
  void VisitWeights(Weights& weights, WeightVisitor visit) const;
  Slot AllocateSlot();
  PendingSlot AllocatePendingSlot();

  Action MakeAction(const MicroBatchTokens& tokens, int slot, bool training);
  int64_t main_blocks() const { return placement_.layer_count; }
  const BlockWeights& WeightsOf(const Weights& weights, int64_t block) const;
  const BlockSaved& SavedOf(const Slot& slot, int64_t block) const;
  const BlockPending& PendingOf(const PendingSlot& pending, int64_t block) const;
  BlockRun Run(const Action& action, int64_t block, const BlockWorkspace& workspace) const;
  // Where the input of main block `block` is kept, and where its gradient goes; past the last block: of the head, or
  // of the next stage.
  View InputPlace(const Slot& slot, int64_t block, View output) const;
  View InputGradientPlace(const PendingSlot& pending, int64_t block, View d_input) const;
  // The hidden state that MTP module `module` (from 0) joins.
  View HiddenBefore(const Slot& slot, int64_t module) const;
  PendingSlot& TakePending(Slot& slot);

  void ListPieces();
  void DoForward(const PieceRun& run, const Piece& piece);
  void DoForwardHead(const PieceRun& run, int64_t head);
  void SumBalance(const PieceRun& run);
  void DoBackward(const PieceRun& run, const Piece& piece);
  void DoBackwardHead(const PieceRun& run, int64_t head);
  // Where a block writes its output, and the gradient of its input.
  View BlockOutput(const PieceRun& run, int64_t block) const;
  View BlockInputGradient(const PieceRun& run, int64_t block) const;
  // The gradient that module `module` gives back to the hidden state that it joined; -1: of the last block's output.
  View HiddenGradient(const PieceRun& run, int64_t module) const;
  void ForwardMain(const Action& action, ConstView input, View output);
  // Experts' gradients of the micro-batches that wait, the last one included; gives their places back.
  void SumExperts(const Action& action);

  Backend& backend_;
  Stream& stream_;
  Arena& arena_;
  const ModelShape shape_;
  const StagePlacement placement_;
  const RecomputeOptions recompute_;
  const ExpertExchange& exchange_;
  const double softmax_scale_;

  std::vector<BlockInfo> blocks_;
  int moe_blocks_ = 0;
  Weights weights_;
  Weights gradients_;                      // of one lane, experts left out
  std::vector<Weights> expert_gradients_;  // of each sum, experts only
  std::vector<Binding> weight_bindings_;
  std::vector<Binding> gradient_bindings_;
  std::vector<std::vector<Binding>> expert_bindings_;        // of each sum
  absl::flat_hash_map<std::string, int> expert_parameters_;  // of the table, by name
  std::vector<int> parameters_;

  std::vector<Piece> forward_pieces_;
  std::vector<Piece> backward_pieces_;
  std::optional<PieceRun> forward_run_;
  std::optional<PieceRun> backward_run_;

  RopeTable rope_;
  View token_loss_;    // [1, T] f32; last stage
  View balance_loss_;  // [1, MoE blocks * sequences] f32
  BlockWorkspace forward_workspace_;
  BlockWorkspace backward_workspace_;
  View unseen_counts_;  // [1, E] i64: where evaluation counts
  std::vector<Slot> slots_;
  std::vector<PendingSlot> pending_;
  // A micro-batch that a sum of expert gradients waits for keeps its slot; whoever names the slot next gets another.
  std::vector<int> slot_of_;      // of slots_, by the number that actions name
  std::vector<int> spare_slots_;  // of slots_
  std::vector<int> waiting_;      // of slots_, in the order of lanes
  std::unique_ptr<ExpertGather> gather_;
  std::vector<ExpertBatch> expert_batches_;  // room for SumExperts
  std::vector<const MlpWeights*> expert_targets_;
  LossScales scales_;
  StepAccumulators accumulators_;
};

}  // namespace shoestring
