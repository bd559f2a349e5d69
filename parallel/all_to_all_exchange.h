// The exchange between the ranks of an expert group: tokens go once to each rank, or once to each machine and from
// there to its ranks (V3 report, section 3.2.2). Journeys and passes: docs/expert_exchange.md.
#pragma once

#include <memory>
#include <vector>

#include "parallel/exchange_forwarder.h"
#include "parallel/exchange_geometry.h"
#include "parallel/exchange_plan.h"
#include "parallel/exchange_wire.h"
#include "parallel/expert_exchange.h"

namespace shoestring {

// One serves every layer of the shape. Takes its buffers from the arena it is made with, and nothing after that. With
// an arena that measures, journeys do nothing.
class AllToAllExchange final : public ExpertExchange {
 public:
  // `node_of`: the machine of each member of `group`. Two hops: machines are runs of `ranks_per_node` members, of which
  // there is a whole number. `group` must outlive this object.
  AllToAllExchange(const ExchangeShape& shape, const ExchangeOptions& options, Communicator& group,
                   const std::vector<int>& node_of, int ranks_per_node, bool two_hop, Arena& arena);

  std::unique_ptr<Plan> AllocatePlan(Arena& arena) const override { return std::make_unique<RankPlan>(g_, arena); }
  int64_t max_rows() const override { return g_.max_rows; }
  int64_t local_experts() const override { return g_.local_experts; }
  int lanes() const override { return g_.ranks; }
  Segments segments(const Plan& plan) const override;
  ConstView lane_offsets(const Plan& plan) const override;
  absl::Span<const int32_t> host_lane_offsets(const Plan& plan) const override;
  absl::Status status() const override { return wire_.status(); }
  ExchangeTraffic traffic() const override { return wire_.traffic(); }

  void BeginDispatch(Backend& backend, Stream& stream, Plan& plan, const DispatchArgs& args) const override;
  void AwaitDispatch(Backend& backend, Stream& stream, Plan& plan) const override;
  void BeginCombine(Backend& backend, Stream& stream, Plan& plan, ConstView rows) const override;
  void AwaitCombine(Backend& backend, Stream& stream, Plan& plan, ConstView base, View out) const override;
  void BeginCombineBackward(Backend& backend, Stream& stream, Plan& plan, Operand d_out,
                            MutableOperand d_rows) const override;
  void AwaitCombineBackward(Backend& backend, Stream& stream, Plan& plan) const override;
  void BeginDispatchBackward(Backend& backend, Stream& stream, Plan& plan, ConstView d_rows,
                             ConstView d_row_weight) const override;
  void AwaitWeightGradients(Backend& backend, Stream& stream, Plan& plan, View d_weights) const override;
  void AwaitDispatchBackward(Backend& backend, Stream& stream, Plan& plan, ConstView base, View dx) const override;

 private:
  // What the choices of a micro-batch go through; one dispatch at a time.
  struct Choices {
    Choices(const ExchangeGeometry& g, Arena& arena);

    View counts_sent;   // [R, kCountColumns + E']
    View counts_came;   // the same
    View home;          // [rows of lists, ChoiceColumns(list_width)]
    View away;          // [R*T, ChoiceColumns(width)]
    View slots;         // [rows of lists, list_width]: the choice of each place
    View row_place;     // [1, R]: where a row's gate weight lies in `away`
    View weight_rows;   // [R*T, width]: the row of each choice, 0 where there is none
    View weights_away;  // [R*T, width] f32: their gradients, here
    View weights_home;  // [rows of lists, list_width] f32: and those that came back
    HostInts experts;
    HostInts counts;
    HostInts home_rows;
    HostInts away_rows;
    HostInts places;
    int32_t send_count = 0;
    std::unique_ptr<SourceMap> lists;
  };

  void BuildLists(const BackendRun& run, RankPlan& plan) const;
  bool TellCounts(const BackendRun& run, RankPlan& plan) const;
  void WriteChoices(const BackendRun& run, RankPlan& plan) const;
  bool ReceiveChoices(const BackendRun& run, RankPlan& plan) const;
  void ReceiveGateWeights(const BackendRun& run, RankPlan& plan) const;
  void BeginTokens(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, Operand x) const;
  void StartTokens(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass,
                   bool with_choices) const;
  bool AwaitTokens(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, MutableOperand rows) const;
  void Expand(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass,
              MutableOperand rows) const;
  void StartResults(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass) const;
  void AwaitResults(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, ConstView base,
                    View out) const;
  void StartWeights(const BackendRun& run, RankPlan& plan, ConstView d_row_weight) const;
  void Clear(const BackendRun& run, RankPlan& plan) const;

  const ExchangeGeometry g_;
  const bool measuring_;
  // Journeys are const for the layers that begin them; what they work with is not. One thread uses an exchange.
  mutable ExchangeWire wire_;
  mutable ExchangeDirection forward_;
  mutable ExchangeDirection backward_;
  mutable Choices choices_;
  const std::unique_ptr<ExchangeForwarder> forwarder_;  // null: direct
};

}  // namespace shoestring
