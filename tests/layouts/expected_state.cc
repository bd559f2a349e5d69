// Where weights, moments and gradients lie, and what travels of them: from names, stages and lanes.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/operations.h"
#include "tests/layouts/expected.h"

namespace shoestring {
namespace {

constexpr int64_t kF32Bytes = 4;

int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Stages in which the parameter is used.
std::set<int> StagesOf(const LayoutBooks& b, const Parameter& p) {
  const int last = b.mesh.stages() - 1;
  if (p.name == "model.embed_tokens.weight") return p.uses > 1 ? std::set<int>{0, last} : std::set<int>{0};
  if (p.is_mtp || p.layer < 0) return {last};
  for (int s = 0; s <= last; ++s) {
    const StagePlacement& placement = b.placements[s];
    if (p.layer >= placement.first_layer && p.layer < placement.first_layer + placement.layer_count) return {s};
  }
  CHECK(false);
  return {};
}

bool HeldBy(const LayoutBooks& b, Rank rank, const Parameter& p) {
  const std::set<int> used = StagesOf(b, p);
  return std::any_of(used.begin(), used.end(), [&](int s) {
    for (int d = 0; d < b.mesh.directions(); ++d) {
      if (b.Holds(rank, s, d)) return true;
    }
    return false;
  });
}

// The part of a stack that the rank holds.
IndexRange MatricesOf(const LayoutBooks& b, Rank rank, const Parameter& p) {
  if (p.domain != MeshDomain::kExpert) return {0, p.stack};
  const int64_t share = p.stack / b.mesh.expert_ranks();
  return {share * (b.mesh.DataIndexOf(rank) % b.mesh.expert_ranks()), share};
}

// The largest nodes of the tree over [first, first + count) that lie in [begin, end).
int64_t NodesInside(int64_t first, int64_t count, int64_t begin, int64_t end) {
  if (first >= end || first + count <= begin) return 0;
  if (first >= begin && first + count <= end) return 1;
  int64_t left = 1;
  while (2 * left < count) left *= 2;
  return NodesInside(first, left, begin, end) + NodesInside(first + left, count - left, begin, end);
}

// What one rank can sum of a stage's lanes (or groups of expert lanes) without others: so many messages.
int64_t NodesOf(const LayoutBooks& b, Rank rank, int stage, bool experts) {
  const int64_t own = b.lanes_of_rank(), data = b.mesh.data_ranks(), index = b.mesh.DataIndexOf(rank);
  int64_t nodes = 0;
  for (int d = 0; d < b.mesh.directions(); ++d) {
    if (!b.Holds(rank, stage, d)) continue;
    const int64_t first = (d * data + index) * own;
    if (!experts) {
      nodes += NodesInside(0, b.lanes, first, first + own);
      continue;
    }
    const int64_t together = own * b.mesh.expert_ranks();
    const int64_t group = first / together * together / b.expert_lanes;
    nodes += NodesInside(0, b.lanes / b.expert_lanes, group, group + together / b.expert_lanes);
  }
  return nodes;
}

const char* LinkOf(SharingGroup::Ranks kind) {
  switch (kind) {
    case SharingGroup::Ranks::kReplicas: return "replicas";
    case SharingGroup::Ranks::kExpertReplicas: return "expert replicas";
    case SharingGroup::Ranks::kEnds: return "ends";
  }
  return "";
}

// An all-gather of flat elements [from, to) of a group that is cut at its boundaries.
void AddGather(const SharingGroup& group, int me, int64_t from, int64_t to, int64_t element_bytes, Received& received) {
  for (int j = 0; j < group.ranks.size(); ++j) {
    const int64_t begin = std::clamp(group.boundaries[j], from, to),
                  end = std::clamp(group.boundaries[j + 1], from, to);
    if (j == me || begin == end) continue;
    ++received.messages;
    received.bytes += (end - begin) * element_bytes;
  }
}

class HeldCheck {
 public:
  HeldCheck(const LayoutBooks& b, const std::vector<HeldTable>& held, std::vector<std::string>& found)
      : b_(b), held_(held), found_(found) {}

  void Run() {
    for (size_t i = 0; i < b_.table.size(); ++i) CheckParameter(static_cast<int>(i));
    for (const HeldTable& table : held_) {
      for (const SharingGroup& group : table.groups()) CheckShares(table, group);
    }
  }

 private:
  const HeldParameter* Find(int rank, int parameter) const {
    for (const HeldParameter& h : held_[rank].held()) {
      if (h.table_index == parameter) return &h;
    }
    return nullptr;
  }
  void Complain(int rank, int parameter, const char* what) {
    found_.push_back(absl::StrCat("rank ", rank, ": ", b_.table[parameter].name, ": ", what));
  }

  void CheckParameter(int parameter) {
    const Parameter& p = b_.table[parameter];
    for (int r = 0; r < b_.mesh.world_size(); ++r) {
      const HeldParameter* h = Find(r, parameter);
      const bool here = HeldBy(b_, Rank(r), p);
      if ((h != nullptr) != here) Complain(r, parameter, here ? "is not here" : "should not be here");
      if (h == nullptr || !here) continue;
      const IndexRange matrices = MatricesOf(b_, Rank(r), p);
      if (h->first_matrix != matrices.first) Complain(r, parameter, "other experts");
      if (p.trained) CheckOwners(r, parameter, matrices.count * p.rows * p.cols);
    }
  }

  // Whoever holds the same elements shares their sum; each element has one owner.
  void CheckOwners(int rank, int parameter, int64_t elements) {
    const HeldParameter& own = *Find(rank, parameter);
    const SharingGroup& group = held_[rank].groups()[own.group];
    std::vector<Rank> same;
    int64_t next = 0;
    bool in_order = true;
    for (int r = 0; r < b_.mesh.world_size(); ++r) {
      const HeldParameter* h = Find(r, parameter);
      if (h == nullptr || h->first_matrix != own.first_matrix) continue;
      same.push_back(Rank(r));
    }
    std::vector<Rank> members = group.ranks.members;
    for (const Rank member : members) {
      const IndexRange& reduced = Find(member.value, parameter)->reduced;
      if (reduced.count > 0) in_order = in_order && reduced.first == next;
      next += reduced.count;
    }
    std::sort(members.begin(), members.end());
    if (members != same) Complain(rank, parameter, "is summed by other ranks than those that hold it");
    if (!in_order || next != elements) Complain(rank, parameter, "elements without an owner, or with two");
    const bool cut = b_.zero1() && same.size() > 1;
    if (own.kept != (cut ? own.reduced : IndexRange{0, elements})) Complain(rank, parameter, "kept part");
  }

  // As even as whole blocks of the norm allow.
  void CheckShares(const HeldTable& table, const SharingGroup& group) {
    int64_t block = 0;
    for (const int i : group.members) {
      const Parameter& p = table.parameters()[i];
      block = std::max(block, std::min<int64_t>(p.rows * p.cols, kNormBlockElements));
    }
    const int64_t even = group.elements / group.ranks.size();
    if (group.largest_share() > even + block + 32) found_.push_back(absl::StrCat(group.name, ": an uneven share"));
  }

  const LayoutBooks& b_;
  const std::vector<HeldTable>& held_;
  std::vector<std::string>& found_;
};

}  // namespace

void CheckHeld(const LayoutBooks& books, const std::vector<HeldTable>& held, std::vector<std::string>& found) {
  HeldCheck(books, held, found).Run();
}

std::map<Purpose, int64_t> StateBytes(const LayoutBooks& b, const HeldTable& held) {
  const bool bf16_moments = b.config.precision().moments() == config::PrecisionConfig::MOMENTS_BF16;
  const bool fp8 = b.config.precision().mode() == config::PrecisionConfig::FP8;
  std::map<Purpose, int64_t> bytes = {
      {Purpose::kMasterWeights, 0}, {Purpose::kComputeWeights, 0}, {Purpose::kMoments, 0}, {Purpose::kEma, 0}};
  for (size_t i = 0; i < held.held().size(); ++i) {
    const Parameter& p = held.parameters()[i];
    const int64_t kept = held.held()[i].kept.count;
    bytes[Purpose::kMasterWeights] += Aligned(kept * kF32Bytes);
    if (p.trained) {
      bytes[Purpose::kMoments] += 2 * Aligned(kept * (bf16_moments ? 2 : kF32Bytes));
      if (b.config.train().has_ema()) bytes[Purpose::kEma] += Aligned(kept * kF32Bytes);
    }
    if (fp8 && p.linear) {
      const int64_t tiles = p.stack * ((p.rows + 127) / 128) * ((p.cols + 127) / 128);
      bytes[Purpose::kComputeWeights] += Aligned(p.elements()) + Aligned(tiles * kF32Bytes);
    }
  }
  for (const SharingGroup& group : held.groups()) {
    bytes[Purpose::kComputeWeights] += Aligned(group.copied_elements * b.act_bytes);
    if (b.zero1() && group.ranks.size() > 1) {
      bytes[Purpose::kComputeWeights] += Aligned((group.elements - group.copied_elements) * kF32Bytes);
    }
  }
  return bytes;
}

std::map<std::string, Received> StateReceived(const LayoutBooks& b, const HeldTable& held, Rank rank) {
  std::map<std::string, Received> received;
  for (const SharingGroup& group : held.groups()) {
    if (group.ranks.size() == 1) continue;
    Received& r = received[LinkOf(group.kind)];
    const int me = group.ranks.IndexOf(rank);
    for (const GradientSection& section : group.sections) {
      const int64_t mine = section.boundaries[me + 1] - section.boundaries[me];
      for (int j = 0; j < group.ranks.size(); ++j) {
        if (j == me || mine == 0) continue;
        const bool experts = group.kind == SharingGroup::Ranks::kExpertReplicas;
        const int64_t nodes = NodesOf(b, group.ranks.members[j], section.stage.value, experts);
        r.messages += nodes;
        r.bytes += nodes * mine * kF32Bytes;
      }
    }
    if (b.zero1()) {
      AddGather(group, me, 0, group.copied_elements, b.act_bytes, r);
      AddGather(group, me, group.copied_elements, group.elements, kF32Bytes, r);
    } else {
      AddGather(group, me, 0, group.elements, kF32Bytes, r);
    }
  }
  return received;
}

}  // namespace shoestring
