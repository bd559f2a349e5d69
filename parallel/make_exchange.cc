// Which path, and which rank sits in which machine.
#include "parallel/make_exchange.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "parallel/all_to_all_exchange.h"
#include "parallel/local_exchange.h"

namespace shoestring {

absl::StatusOr<std::unique_ptr<ExpertExchange>> MakeExchange(const config::LayoutConfig& layout, const Mesh& mesh,
                                                             Rank rank, const ExchangeShape& shape,
                                                             ExchangeOptions options, Communicator& group,
                                                             Arena& arena) {
  const int ranks = mesh.expert_ranks();
  if (ranks == 1) return MakeLocalExchange(shape);
  if (shape.experts % ranks != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout: expert_ranks (", ranks, ") does not divide ", shape.experts, " routed experts"));
  }
  const RankGroup members = mesh.ExpertGroup(rank);
  CHECK_EQ(group.size(), ranks);
  CHECK_EQ(group.index(), members.IndexOf(rank));
  const int node_ranks = layout.ranks_per_node();
  std::vector<int> node_of;
  for (Rank member : members.members) node_of.push_back(member.value / node_ranks);
  const bool asked = layout.exchange().path() == config::ExpertExchange::TWO_HOP;
  if (asked && (ranks % node_ranks != 0 || members.members[0].value % node_ranks != 0)) {
    return absl::InvalidArgumentError(absl::StrCat("layout: exchange TWO_HOP needs whole machines, but expert_ranks (",
                                                   ranks, ") is not a multiple of ranks_per_node (", node_ranks, ")"));
  }
  // With one rank a machine, or one machine, the second hop would lead nowhere.
  const bool two_hop = asked && node_ranks > 1 && node_ranks < ranks;
  options.buffer_factor = layout.exchange().buffer_factor();
  return std::make_unique<AllToAllExchange>(shape, options, group, node_of, node_ranks, two_hop, arena);
}

}  // namespace shoestring
