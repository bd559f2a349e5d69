// The middle of an exchange in two hops: what came from another machine is spread over the ranks of this one, and what
// they return is summed, where a routing group lies in this machine, before it leaves.
#pragma once

#include "parallel/exchange_plan.h"

namespace shoestring {

// Where operations of one call run.
struct BackendRun {
  Backend& backend;
  Stream& stream;
};

class ExchangeForwarder {
 public:
  // Both must outlive this object.
  ExchangeForwarder(const ExchangeGeometry& g, ExchangeWire& wire, Arena& arena);

  // [tokens, ChoiceColumns(list_width)]: where choices of the first hop arrive, in the order of machines.
  View choices() const { return choices_; }
  // After they have arrived: sends each rank its own and receives in `away` those for this rank's experts, by region.
  bool ForwardChoices(const BackendRun& run, RankPlan& plan, View away);
  // The tokens of the pass lie in `near`: starts their way to `away`.
  void StartTokens(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass);
  // Inside a group: receives in `spread` the results of the machine's ranks.
  void ReceiveResults(ExchangeDirection& direction, RankPlan& plan, int64_t pass);
  // They lie there: sums them into `near` and starts their way home.
  void StartSums(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass);
  // Inside a group: receives the gradients of gate weights of the machine's ranks.
  void ReceiveWeights(RankPlan& plan);
  // They have come: brings all of them home, [rows of lists, list_width] f32, and waits.
  bool ForwardWeights(const BackendRun& run, RankPlan& plan, View home);

 private:
  // Lists of the tokens whose rows or results are in this pass.
  void ListTokens(const RankPlan& plan, int64_t pass);
  void ListResults(const RankPlan& plan, int64_t pass);
  void ListAll(const RankPlan& plan);
  // After ListResults: which results of ranks each one that leaves is made of. Returns how many.
  int64_t ListSums(const RankPlan& plan);
  void WriteChoices(const BackendRun& run, int64_t tokens);

  const ExchangeGeometry& g_;
  ExchangeWire& wire_;
  const ExpertSplit part_;     // the machine's experts over its ranks
  const ExpertSplit machine_;  // the same, one destination
  SourceMap lists_;            // one a rank of the machine
  View choices_;
  View choices_out_;   // [tokens * ranks, ChoiceColumns(width)]
  View choice_slots_;  // [tokens * ranks, width]
  View list_tokens_;   // [1, 1 + tokens * ranks]: how many, then which
  View members_;       // [results of a pass, list_width]
  View slot_place_;    // [tokens, list_width]
  View weights_in_;    // [tokens * ranks, width] f32
  View weights_out_;   // [tokens, list_width] f32
  HostInts host_choices_;
  HostInts host_out_;
  HostInts host_slots_;
  HostInts host_members_;
  int32_t list_count_ = 0;
  std::vector<IndexRange> runs_;         // by machine: tokens of the pass
  std::vector<int64_t> machine_counts_;  // by machine: sums of the pass
};

}  // namespace shoestring
