// Allocation of plans and buffers.
#include "parallel/exchange_plan.h"

#include <algorithm>

namespace shoestring {
namespace {

// Room for `tokens` rows of a format, later for `results` rows of act.
View AllocateRows(const ExchangeGeometry& g, Arena& arena, absl::string_view name, const RowFormat& format,
                  int64_t tokens, int64_t results) {
  const int64_t bytes = std::max(tokens * g.row_bytes(format), results * g.row_bytes(g.act()));
  return arena.Allocate(Purpose::kExchange, name, DType::kU8, 1, bytes);
}

}  // namespace

RankPlan::RankPlan(const ExchangeGeometry& g, Arena& arena)
    : offsets(AllocateIndices(arena, "exchange.offsets", 1, g.local_experts + 1)),
      lane_offsets(AllocateIndices(arena, "exchange.lane_offsets", 1, g.local_experts * g.ranks + 1)),
      send_rows(AllocateIndices(arena, "exchange.send_rows", 1, 1 + g.max_list_rows())),
      slot_result(AllocateIndices(arena, "exchange.slot_result", g.shape.tokens, g.shape.chosen)),
      slot_place(AllocateIndices(arena, "exchange.slot_place", g.shape.tokens, g.shape.chosen)),
      send_offsets(g.peers() + 1),
      result_offsets(g.peers() + 1),
      first_hop_tokens(g.peers()) {
  if (arena.measuring()) return;
  first_result = HostInts(g.max_list_rows() + 1);
  row_result_pass = HostInts(g.max_list_rows());
  arrivals = std::make_unique<ArrivalMap>(g.here, g.RegionLanes(), g.shape.tokens, g.shape.chosen);
  if (!g.two_hop) return;
  forward.ids = HostInts(g.nodes * g.shape.tokens * g.list_width);
  forward.result_pass = HostInts(g.nodes * g.shape.tokens);
  forward.offsets.resize(g.nodes + 1);
}

IndexRange RankPlan::ResultsOfPass(int64_t list, int64_t pass) const {
  const IndexRange rows = EqualTo(row_result_pass, send_offsets[list], send_offsets[list + 1], pass);
  const int64_t first = send_offsets[list] + rows.first;
  return {first_result[first], first_result[first + rows.count] - first_result[first]};
}

ExchangeDirection::ExchangeDirection(const ExchangeGeometry& g, const RowFormat& format, Arena& arena)
    : format(format),
      home(AllocateRows(g, arena, "exchange.home", format, g.max_list_rows(), g.max_home_results())),
      away(AllocateRows(g, arena, "exchange.away", format, g.ranks * g.pass_tokens, g.ranks * g.pass_results)),
      row_source(AllocateIndices(arena, "exchange.row_source", 1, g.max_rows)),
      run_counts(AllocateIndices(arena, "exchange.run_counts", 1, g.local_experts * g.ranks)),
      members(AllocateIndices(arena, "exchange.members", g.ranks * g.pass_results, g.width)),
      chunks(g.ranks),
      region_results(g.ranks) {
  if (g.two_hop) {
    const int64_t tokens = g.nodes * g.pass_tokens;
    const int64_t results = g.nodes * g.pass_results;
    near = AllocateRows(g, arena, "exchange.near", format, tokens, results);
    spread =
        AllocateRows(g, arena, "exchange.spread", format, tokens * g.Part(0).MaxDestinations(g.shape.chosen), results);
  }
  runs.reserve(g.local_experts * g.ranks);
  if (arena.measuring()) return;
  host_row_source = HostInts(row_source.elements());
  host_run_counts = HostInts(run_counts.elements());
  host_members = HostInts(members.elements());
}

}  // namespace shoestring
