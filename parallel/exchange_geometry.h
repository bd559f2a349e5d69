// Who meets whom in an expert exchange between ranks, and how much of what fits into one pass.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/exchange_maps.h"
#include "parallel/exchange_wire.h"
#include "parallel/expert_exchange.h"

namespace shoestring {

// What an exchange between ranks needs to know besides the sizes of a layer.
struct ExchangeOptions {
  int64_t hidden = 0;           // D
  DType act = DType::kBF16;     // of results
  RowFormat dispatch;           // of tokens on their way to experts
  RowFormat dispatch_gradient;  // of gradients of results on theirs
  double buffer_factor = 2;     // see config::ExpertExchange
  double timeout_s = 600;       // of each message
};

// Direct: the lists of a rank go to the ranks of the group. In two hops: to the machines, each to the rank there that
// has the sender's place ("forwarder"); from there to the ranks of the machine. Results come back the same way.
struct ExchangeGeometry {
  ExchangeGeometry(const ExchangeShape& shape, const ExchangeOptions& options, int ranks, int index, int ranks_per_node,
                   bool two_hop);

  ExchangeShape shape;
  ExchangeOptions options;
  int ranks = 1;  // of the group
  int index = 0;  // this rank's
  bool two_hop = false;
  int node_ranks = 1;  // two hops: ranks of a machine
  int nodes = 1;       // two hops: machines of the group

  int64_t local_experts = 1;  // E'
  ExpertSplit lists;          // all experts over the destinations of lists
  ExpertSplit here;           // this rank's experts, one destination
  int64_t list_width = 1;     // slots of a token in one list
  int64_t width = 1;          // slots of a token at one rank
  int64_t max_rows = 0;       // R
  int64_t pass_tokens = 1;    // of one list in one pass
  int64_t pass_results = 1;   // that the ranks of a list send in one pass

  // First hop: lists and the senders of what arrives here first, by number.
  int peers() const { return two_hop ? nodes : ranks; }
  int Peer(int i) const { return two_hop ? i * node_ranks + index % node_ranks : i; }
  // Last hop: who brings tokens to this rank's experts, each the regions [i * regions_per, (i + 1) * regions_per).
  int last_peers() const { return two_hop ? node_ranks : ranks; }
  int LastPeer(int i) const { return two_hop ? index / node_ranks * node_ranks + i : i; }
  int regions_per_peer() const { return two_hop ? nodes : 1; }
  std::vector<int> RegionLanes() const;

  // The experts of a list over the ranks that hold them.
  ExpertSplit Part(int64_t list) const;
  int64_t max_list_rows() const { return shape.tokens * lists.MaxDestinations(shape.chosen); }
  int64_t max_home_results() const { return shape.tokens * lists.MaxResults(shape.chosen); }
  int64_t row_bytes(const RowFormat& format) const { return format.bytes(options.hidden); }
  RowFormat act() const { return {options.act, {}}; }
  // The p-th piece of `rows` rows of a list.
  IndexRange RowsOfPass(int64_t rows, int64_t pass) const;
};

// Two slots of CombineRows are in one group if their ids are in one run of so many: here, always.
constexpr int64_t kOneGroup = int64_t{1} << 40;

}  // namespace shoestring
