// Gradients of the experts' weights: one grouped product takes the rows that several lanes sent, in the order of
// experts, lanes, tokens (docs/numerics.md, "Order of sums", rule 2).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "trainer/model/moe.h"

namespace shoestring {

// What one micro-batch kept for them in one layer.
struct ExpertBatch {
  const MoeSaved* saved = nullptr;
  const MoePending* pending = nullptr;
};

// Puts rows of several micro-batches and lanes together; holds room for offsets on the host. Its copies are as many as
// lanes and experts, which is why the width of production should be one that needs none: then nothing is put together.
class ExpertGather {
 public:
  // `together` micro-batches are handed over at a time, G = `lanes_per_sum` lanes are summed at once. The order of
  // lanes: those that one rank sent, micro-batch by micro-batch; then those of the next rank of the exchange.
  ExpertGather(const ExpertExchange& exchange, int64_t together, int64_t lanes_per_sum);

  int64_t sums() const { return together_ * lanes_ / lanes_per_sum_; }

  // Adds to the gradients, one target a sum. Uses scratch.
  void BackwardWeight(const LayerContext& ctx, absl::Span<const ExpertBatch> batches,
                      absl::Span<const MlpWeights* const> targets);

 private:
  // A run of rows of one expert.
  struct Run {
    int64_t batch = 0;
    int64_t first = 0;
    int64_t count = 0;
  };

  bool TakesAllRows() const { return together_ == 1 && lanes_per_sum_ == lanes_; }
  void ReadOffsets(const LayerContext& ctx, absl::Span<const ExpertBatch> batches);
  int64_t PlanSum(int64_t sum);
  MutableOperand Gather(const LayerContext& ctx, const char* name, absl::Span<const Operand> parts) const;
  void BackwardSum(const LayerContext& ctx, absl::Span<const ExpertBatch> batches, int64_t sum,
                   const MlpWeights& target);

  const ExpertExchange& exchange_;
  const int64_t together_;
  const int64_t lanes_per_sum_;
  const int64_t lanes_;               // of the exchange
  const int64_t experts_;             // here
  const int64_t max_rows_;            // of a sum
  std::vector<int32_t> offsets_;      // [together, experts * lanes + 1]
  std::vector<int32_t> sum_offsets_;  // [experts + 1]
  std::vector<Run> runs_;             // of a sum, in the order of its rows
  std::vector<Operand> parts_;        // [together]
};

}  // namespace shoestring
