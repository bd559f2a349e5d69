// What an exchange between ranks keeps: of each live micro-batch a plan, of each direction the buffers of a journey.
#pragma once

#include <memory>
#include <vector>

#include "parallel/exchange_geometry.h"

namespace shoestring {

// Choices that this rank forwards inside its machine, in the order of the machines they come from.
struct ForwardPlan {
  HostInts ids;                  // [tokens, list_width]: inside the machine
  HostInts result_pass;          // [tokens]
  std::vector<int64_t> offsets;  // [nodes + 1]: tokens from each machine
};

// Of one layer of one live micro-batch. Views lie in the plan's arena. If that measures there is no host memory.
struct RankPlan : ExpertExchange::Plan {
  RankPlan(const ExchangeGeometry& g, Arena& arena);
  ~RankPlan() override = default;

  View offsets;       // [1, E'+1]
  View lane_offsets;  // [1, E'*R+1]
  // Tokens of this rank: who is sent which, and where results come from. `slot_*` and lists as SourceMap has them.
  View send_rows;    // [1, 1 + rows]: how many, then the token of each
  View slot_result;  // [T, K]
  View slot_place;   // [T, K]
  std::vector<int64_t> send_offsets;
  std::vector<int64_t> result_offsets;
  HostInts first_result;
  HostInts row_result_pass;  // [rows]
  int64_t tokens = 0;        // of this micro-batch, at most T
  // Passes of journeys to experts and back, the same on every rank of the group.
  int64_t passes = 0;
  int64_t result_passes = 0;
  // Tokens of others: those that come here in the first hop, by sender; those for this rank's experts.
  std::vector<int64_t> first_hop_tokens;
  std::unique_ptr<ArrivalMap> arrivals;
  ForwardPlan forward;

  // Of the journeys under way.
  ExpertExchange::DispatchArgs dispatch;
  MutableOperand d_results;  // [R, D]

  int64_t send_count() const { return send_offsets.back(); }
  // Where the results of a list lie that come in a pass, among all results.
  IndexRange ResultsOfPass(int64_t list, int64_t pass) const;
};

// One direction's buffers; one journey at a time uses them.
struct ExchangeDirection {
  ExchangeDirection(const ExchangeGeometry& g, const RowFormat& format, Arena& arena);

  RowFormat format;  // of rows on their way to experts
  ExchangeLeg to_experts = ExchangeLeg::kDispatch;
  ExchangeLeg to_tokens = ExchangeLeg::kCombine;
  View home;        // u8: rows to send, later results that came
  View away;        // u8: tokens that came in a pass, later results to send
  View near;        // u8, two hops: tokens that came from other machines, later sums to send there
  View spread;      // u8, two hops: tokens to send inside the machine, later results that came from there
  View row_source;  // [1, R]
  View run_counts;  // [1, E'*R]
  View members;     // [results of a pass, width]
  HostInts host_row_source;
  HostInts host_run_counts;
  HostInts host_members;
  std::vector<IndexRange> runs;
  std::vector<IndexRange> chunks;  // by region
  std::vector<int64_t> region_results;
  Ticket ticket;
  Ticket forwarded;
  Ticket weights;
  ConstView rows;  // [R, D]: what is combined
};

}  // namespace shoestring
