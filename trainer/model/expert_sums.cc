// Copies runs of rows side by side, then differentiates as if they had come so.
#include "trainer/model/expert_sums.h"

#include "base/check.h"

namespace shoestring {
namespace {

// Values as bytes: rows are moved, not read.
template <typename ViewType>
ViewType AsBytes(const ViewType& x) {
  return {x.data, DType::kU8, x.rows, BytesOf(x.dtype, x.cols), BytesOf(x.dtype, x.stride)};
}

OperandFormat FormatOf(const Operand& x) { return {x.values.dtype, x.tile, x.power_of_two}; }

}  // namespace

ExpertGather::ExpertGather(const ExpertExchange& exchange, int64_t together, int64_t lanes_per_sum)
    : exchange_(exchange),
      together_(together),
      lanes_per_sum_(lanes_per_sum),
      lanes_(exchange.lanes()),
      experts_(exchange.local_experts()),
      max_rows_(exchange.max_rows() / exchange.lanes() * lanes_per_sum) {
  CHECK_EQ(together * lanes_ % lanes_per_sum, 0);
  if (TakesAllRows()) return;
  offsets_.resize(together * (experts_ * lanes_ + 1));
  sum_offsets_.resize(experts_ + 1);
  runs_.reserve(experts_ * lanes_per_sum);
  parts_.resize(together);
}

void ExpertGather::ReadOffsets(const LayerContext& ctx, absl::Span<const ExpertBatch> batches) {
  const int64_t size = experts_ * lanes_ + 1;
  for (size_t b = 0; b < batches.size(); ++b) {
    const ExpertExchange::Plan& plan = *batches[b].saved->plan;
    const absl::Span<const int32_t> host = exchange_.host_lane_offsets(plan);
    if (host.empty()) {
      ctx.backend.CopyToHost(ctx.stream, exchange_.lane_offsets(plan), offsets_.data() + b * size);
    } else {
      std::copy(host.begin(), host.end(), offsets_.begin() + b * size);
    }
  }
  ctx.backend.Synchronize(ctx.stream);
}

// Lanes of a block in order: source by source, micro-batch by micro-batch.
int64_t ExpertGather::PlanSum(int64_t sum) {
  runs_.clear();
  int32_t rows = 0;
  for (int64_t e = 0; e < experts_; ++e) {
    sum_offsets_[e] = rows;
    for (int64_t lane = sum * lanes_per_sum_; lane < (sum + 1) * lanes_per_sum_; ++lane) {
      const int64_t source = lane / together_, batch = lane % together_;
      const int32_t* from = offsets_.data() + batch * (experts_ * lanes_ + 1) + e * lanes_ + source;
      if (from[1] == from[0]) continue;
      runs_.push_back({batch, from[0], from[1] - from[0]});
      rows += from[1] - from[0];
    }
  }
  sum_offsets_[experts_] = rows;
  return rows;
}

MutableOperand ExpertGather::Gather(const LayerContext& ctx, const char* name, absl::Span<const Operand> parts) const {
  const MutableOperand whole =
      AllocateOperand(ctx.scratch, Purpose::kScratch, name, FormatOf(parts[0]), max_rows_, parts[0].values.cols);
  int64_t next = 0;
  for (const Run& run : runs_) {
    const Operand& from = parts[run.batch];
    ctx.backend.Copy(ctx.stream, AsBytes(from.values.Rows(run.first, run.count)),
                     AsBytes(whole.values.Rows(next, run.count)));
    if (whole.quantised()) {
      CHECK_EQ(from.tile.rows, 1);
      ctx.backend.Copy(ctx.stream, from.scales.Rows(run.first, run.count), whole.scales.Rows(next, run.count));
    }
    next += run.count;
  }
  return whole;
}

void ExpertGather::BackwardSum(const LayerContext& ctx, absl::Span<const ExpertBatch> batches, int64_t sum,
                               const MlpWeights& target) {
  ArenaScope scope(ctx.scratch);
  const int64_t rows = PlanSum(sum);
  CHECK_LE(rows, max_rows_);
  const auto gather = [&](const char* name, auto part_of) {
    for (size_t b = 0; b < batches.size(); ++b) parts_[b] = part_of(batches[b]);
    return Gather(ctx, name, parts_);
  };
  const View offsets = ctx.Scratch("experts.offsets", DType::kI32, 1, experts_ + 1);
  ctx.backend.CopyFromHost(ctx.stream, sum_offsets_.data(), offsets);
  ctx.backend.Synchronize(ctx.stream);  // the host's copy is used again
  MlpSaved saved;
  const auto column = [](const View& row) { return Operand(row.Reshape(row.cols, 1)); };
  const bool has_hidden = static_cast<bool>(batches[0].saved->experts.hidden);
  if (has_hidden) {
    saved.hidden = gather("experts.hidden", [](const ExpertBatch& b) { return Operand(b.saved->experts.hidden); });
  } else {
    saved.gate_up = gather("experts.gate_up", [](const ExpertBatch& b) { return Operand(b.saved->experts.gate_up); });
  }
  const MutableOperand x = gather("experts.x", [](const ExpertBatch& b) { return Operand(b.saved->rows); });
  const MutableOperand d_out =
      gather("experts.d_out", [](const ExpertBatch& b) { return Operand(b.pending->d_results); });
  const MlpPending pending = {
      gather("experts.d_gate_up", [](const ExpertBatch& b) { return Operand(b.pending->experts.d_gate_up); }).values};
  const View weight =
      gather("experts.row_weight", [&](const ExpertBatch& b) { return column(b.saved->row_weight); }).values;
  MlpBackwardWeight(ctx, x, saved, pending, d_out, target,
                    {{offsets, experts_, max_rows_, rows}, weight.Reshape(1, max_rows_), {}});
}

void ExpertGather::BackwardWeight(const LayerContext& ctx, absl::Span<const ExpertBatch> batches,
                                  absl::Span<const MlpWeights* const> targets) {
  CHECK_EQ(static_cast<int64_t>(batches.size()), together_);
  CHECK_EQ(static_cast<int64_t>(targets.size()), sums());
  if (TakesAllRows()) {
    const MoeSaved& saved = *batches[0].saved;
    const MoePending& pending = *batches[0].pending;
    MlpBackwardWeight(ctx, saved.rows, saved.experts, pending.experts, pending.d_results, *targets[0],
                      {exchange_.segments(*saved.plan), saved.row_weight, {}});
    return;
  }
  ReadOffsets(ctx, batches);
  for (int64_t sum = 0; sum < sums(); ++sum) BackwardSum(ctx, batches, sum, *targets[sum]);
}

}  // namespace shoestring
