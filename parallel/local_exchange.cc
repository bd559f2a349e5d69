// Begins remember what they are handed, awaits compute: the permutation is done when its result is needed.
#include "parallel/local_exchange.h"

namespace shoestring {
namespace {

struct LocalPlan : ExpertExchange::Plan {
  View offsets;    // [1, E+1] i32
  View row_token;  // [1, R] i32
  View row_slot;   // [1, R] i32
  View slot_row;   // [T, K] i32
  ConstView experts;
  ExpertExchange::DispatchArgs dispatch;
  ConstView results;         // [R, D]
  Operand d_out;             // [T, D]
  MutableOperand d_results;  // [R, D]
  ConstView d_rows;          // [R, D]
  ConstView d_row_weight;    // [1, R]
};

LocalPlan& Own(ExpertExchange::Plan& plan) { return static_cast<LocalPlan&>(plan); }

class LocalExchange : public ExpertExchange {
 public:
  explicit LocalExchange(const ExchangeShape& shape) : shape_(shape) {}

  std::unique_ptr<Plan> AllocatePlan(Arena& arena) const override {
    auto plan = std::make_unique<LocalPlan>();
    plan->offsets = arena.Allocate(Purpose::kExchange, "exchange.offsets", DType::kI32, 1, shape_.experts + 1);
    plan->row_token = arena.Allocate(Purpose::kExchange, "exchange.row_token", DType::kI32, 1, max_rows());
    plan->row_slot = arena.Allocate(Purpose::kExchange, "exchange.row_slot", DType::kI32, 1, max_rows());
    plan->slot_row = arena.Allocate(Purpose::kExchange, "exchange.slot_row", DType::kI32, shape_.tokens, shape_.chosen);
    return plan;
  }
  int64_t max_rows() const override { return shape_.tokens * shape_.chosen; }
  int64_t local_experts() const override { return shape_.experts; }
  int lanes() const override { return 1; }
  Segments segments(const Plan& plan) const override { return {lane_offsets(plan), shape_.experts, max_rows()}; }
  ConstView lane_offsets(const Plan& plan) const override { return static_cast<const LocalPlan&>(plan).offsets; }
  absl::Span<const int32_t> host_lane_offsets(const Plan&) const override { return {}; }
  absl::Status status() const override { return absl::OkStatus(); }
  ExchangeTraffic traffic() const override { return {}; }

  void BeginDispatch(Backend& backend, Stream& stream, Plan& base_plan, const DispatchArgs& args) const override {
    LocalPlan& plan = Own(base_plan);
    plan.dispatch = args;
    plan.experts = args.experts;
    backend.PlanDispatch(stream,
                         {args.experts, shape_.experts, plan.offsets, plan.row_token, plan.row_slot, plan.slot_row});
  }
  void AwaitDispatch(Backend& backend, Stream& stream, Plan& base_plan) const override {
    LocalPlan& plan = Own(base_plan);
    backend.GatherRows(stream, plan.dispatch.x, plan.row_token, plan.offsets, plan.dispatch.rows);
    backend.GatherChosen(stream, plan.dispatch.weights, plan.row_slot, plan.offsets, plan.dispatch.row_weight);
  }

  void BeginCombine(Backend&, Stream&, Plan& plan, ConstView rows) const override { Own(plan).results = rows; }
  void AwaitCombine(Backend& backend, Stream& stream, Plan& plan, ConstView base, View out) const override {
    Combine(backend, stream, Own(plan), Own(plan).results, base, out);
  }

  void BeginCombineBackward(Backend&, Stream&, Plan& plan, Operand d_out, MutableOperand d_rows) const override {
    Own(plan).d_out = d_out;
    Own(plan).d_results = d_rows;
  }
  void AwaitCombineBackward(Backend& backend, Stream& stream, Plan& base_plan) const override {
    LocalPlan& plan = Own(base_plan);
    backend.GatherRows(stream, plan.d_out, plan.row_token, plan.offsets, plan.d_results);
  }

  void BeginDispatchBackward(Backend&, Stream&, Plan& plan, ConstView d_rows, ConstView d_row_weight) const override {
    Own(plan).d_rows = d_rows;
    Own(plan).d_row_weight = d_row_weight;
  }
  void AwaitWeightGradients(Backend& backend, Stream& stream, Plan& plan, View d_weights) const override {
    backend.ScatterChosen(stream, Own(plan).d_row_weight, Own(plan).slot_row, d_weights);
  }
  void AwaitDispatchBackward(Backend& backend, Stream& stream, Plan& plan, ConstView base, View dx) const override {
    Combine(backend, stream, Own(plan), Own(plan).d_rows, base, dx);
  }

 private:
  void Combine(Backend& backend, Stream& stream, const LocalPlan& plan, ConstView rows, ConstView base,
               View out) const {
    backend.CombineRows(stream, {rows, plan.slot_row, plan.experts, shape_.experts_per_group, base}, out);
  }

  const ExchangeShape shape_;
};

}  // namespace

std::unique_ptr<ExpertExchange> MakeLocalExchange(const ExchangeShape& shape) {
  return std::make_unique<LocalExchange>(shape);
}

}  // namespace shoestring
