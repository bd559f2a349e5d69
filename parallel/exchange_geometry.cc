// Sizes of passes: a share of the buffers for each list, so that nobody waits for another's rows to leave.
#include "parallel/exchange_geometry.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace shoestring {

ExchangeGeometry::ExchangeGeometry(const ExchangeShape& shape, const ExchangeOptions& options, int ranks, int index,
                                   int ranks_per_node, bool two_hop)
    : shape(shape), options(options), ranks(ranks), index(index), two_hop(two_hop) {
  CHECK_EQ(shape.experts % ranks, 0);
  local_experts = shape.experts / ranks;
  if (two_hop) {
    CHECK_EQ(ranks % ranks_per_node, 0);
    node_ranks = ranks_per_node;
    nodes = ranks / ranks_per_node;
  }
  lists = {0, peers(), shape.experts / peers(), shape.experts_per_group};
  here = {index * local_experts, 1, local_experts, shape.experts_per_group};
  list_width = lists.Width(shape.chosen);
  width = here.Width(shape.chosen);
  max_rows = shape.tokens * width * ranks;
  CHECK_LE(max_rows * std::max<int64_t>(1, ChoiceColumns(width)), std::numeric_limits<int32_t>::max());
  // Balanced routing sends tokens * chosen rows a rank, evenly to the ranks.
  const double balanced = static_cast<double>(shape.tokens * shape.chosen) / ranks;
  const int64_t share = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(options.buffer_factor * balanced)));
  const int64_t token_results = Part(0).MaxResults(shape.chosen);
  pass_tokens = std::min(share, std::max<int64_t>(1, shape.tokens));
  pass_results = std::max(token_results, std::min(share, shape.tokens * token_results));
}

std::vector<int> ExchangeGeometry::RegionLanes() const {
  std::vector<int> lanes;
  for (int peer = 0; peer < last_peers(); ++peer) {
    for (int i = 0; i < regions_per_peer(); ++i) lanes.push_back(two_hop ? i * node_ranks + peer : peer);
  }
  return lanes;
}

ExpertSplit ExchangeGeometry::Part(int64_t list) const {
  return {list * lists.experts_per_destination, node_ranks, local_experts, shape.experts_per_group};
}

IndexRange ExchangeGeometry::RowsOfPass(int64_t rows, int64_t pass) const {
  const int64_t first = std::min(rows, pass * pass_tokens);
  return {first, std::min(rows - first, pass_tokens)};
}

}  // namespace shoestring
