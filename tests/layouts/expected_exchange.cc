// What an expert exchange must bring a rank, from the experts that everyone's tokens chose (docs/expert_exchange.md).
#include <algorithm>
#include <cmath>
#include <set>

#include "tests/layouts/expected.h"

namespace shoestring {
namespace {

// Sums of values and scales, padded to four bytes.
int64_t BytesOfRow(const OperandFormat& format, int64_t hidden) {
  const int64_t values = (BytesOf(format.dtype, hidden) + 3) / 4 * 4;
  return values + (format.quantised() ? (hidden + format.tile.cols - 1) / format.tile.cols * 4 : 0);
}

// One dispatch of one layer. A machine is a run of ranks that a token reaches by one message; on the direct path every
// rank is a machine of its own.
class Exchange {
 public:
  Exchange(const LayoutBooks& b, const std::vector<RankRecord>& ranks, Rank rank)
      : s_(b.shape),
        records_(ranks),
        members_(b.mesh.ExpertGroup(rank).members),
        me_(b.mesh.ExpertGroup(rank).IndexOf(rank)),
        group_(static_cast<int>(members_.size())) {
    const int node = b.layout.ranks_per_node();
    const bool hops = b.layout.exchange().path() == config::ExpertExchange::TWO_HOP && node > 1 && node < group_;
    machine_ = hops ? node : 1;
    local_ = s_.experts / group_;
    act_row_ = s_.hidden * b.act_bytes;
    token_row_ = BytesOfRow(s_.formats.dispatch, s_.hidden);
    gradient_row_ = BytesOfRow(s_.formats.dispatch_gradient, s_.hidden);
    const double balanced = static_cast<double>(s_.tokens() * s_.chosen) / group_;
    const int64_t share =
        std::max<int64_t>(1, static_cast<int64_t>(std::ceil(b.layout.exchange().buffer_factor() * balanced)));
    pass_tokens_ = std::min(share, s_.tokens());
    const int64_t in_machine = machine_ * local_, of_group = s_.experts / s_.groups;
    const int64_t most = std::min(s_.chosen, local_ % of_group == 0 ? in_machine / of_group : in_machine);
    pass_results_ = std::max(most, std::min(share, s_.tokens() * most));
  }

  Received All() {
    if (group_ == 1) return {};
    for (dispatch_ = 0; dispatch_ < records_[members_[me_].value].choices.size(); ++dispatch_) {
      Counts();
      FromOtherMachines();
      InsideMachine();
      BackInsideMachine();
      BackFromOtherMachines();
    }
    return received_;
  }

 private:
  // A token on the list of one sender for one machine.
  struct Entry {
    int64_t token_pass = 0;
    int64_t result_pass = 0;
    std::vector<int32_t> experts;  // of the machine
  };

  int MachineOf(int member) const { return member / machine_; }
  int PlaceOf(int member) const { return member % machine_; }
  int machines() const { return group_ / machine_; }
  int64_t MemberOf(int32_t expert) const { return expert / local_; }

  // Results of these experts, in order, where `width` neighbouring experts from a multiple of `width` on are together:
  // one for those of a routing group that lies in one such run, else one each.
  int64_t ResultsOf(const std::vector<int32_t>& experts, int64_t width) const {
    const int64_t of_group = s_.experts / s_.groups;
    std::set<int64_t> groups;
    int64_t alone = 0;
    for (const int32_t e : experts) {
      const int64_t first = e / of_group * of_group;
      if (first / width == (first + of_group - 1) / width) {
        groups.insert(first);
      } else {
        ++alone;
      }
    }
    return alone + static_cast<int64_t>(groups.size());
  }

  std::vector<Entry> ListOf(int sender, int machine) const {
    const Choices& choices = records_[members_[sender].value].choices[dispatch_];
    std::vector<Entry> list;
    int64_t results = 0, pass = 0;
    for (size_t first = 0; first < choices.size(); first += s_.chosen) {
      Entry entry;
      for (int64_t k = 0; k < s_.chosen; ++k) {
        if (MachineOf(static_cast<int>(MemberOf(choices[first + k]))) == machine) {
          entry.experts.push_back(choices[first + k]);
        }
      }
      if (entry.experts.empty()) continue;
      const int64_t more = ResultsOf(entry.experts, local_);
      if (results + more > pass_results_) {
        ++pass;
        results = 0;
      }
      results += more;
      entry.result_pass = pass;
      entry.token_pass = static_cast<int64_t>(list.size()) / pass_tokens_;
      list.push_back(entry);
    }
    return list;
  }

  std::vector<int32_t> At(const Entry& entry, int member) const {
    std::vector<int32_t> here;
    for (const int32_t e : entry.experts) {
      if (MemberOf(e) == member) here.push_back(e);
    }
    return here;
  }

  void Add(int64_t messages, int64_t bytes) {
    received_.messages += messages;
    received_.bytes += bytes;
  }
  // Rows of several passes: a message for each pass that has any.
  void AddRows(const std::map<int64_t, int64_t>& rows_of_pass, int64_t row_bytes) {
    for (const auto& [pass, rows] : rows_of_pass) {
      if (rows > 0) Add(1, rows * row_bytes);
    }
  }
  void AddOnce(int64_t rows, int64_t row_bytes) { Add(rows > 0 ? 1 : 0, rows * row_bytes); }

  void Counts() { Add(group_ - 1, (group_ - 1) * (4 + local_) * 4); }

  // First hop: choices and tokens, in both directions of a step.
  void FromOtherMachines() {
    const int64_t width = std::min(s_.chosen, machine_ * local_);
    for (int m = 0; m < machines(); ++m) {
      if (m == MachineOf(me_)) continue;
      const std::vector<Entry> list = ListOf(m * machine_ + PlaceOf(me_), MachineOf(me_));
      std::map<int64_t, int64_t> passes;
      for (const Entry& entry : list) ++passes[entry.token_pass];
      AddOnce(static_cast<int64_t>(list.size()), (2 * width + 2) * 4);
      AddRows(passes, token_row_);
      AddRows(passes, gradient_row_);
    }
  }

  // Second hop: what mates forward to this rank's experts.
  void InsideMachine() {
    const int64_t width = std::min(s_.chosen, local_);
    for (int mate = MachineOf(me_) * machine_; mate < (MachineOf(me_) + 1) * machine_; ++mate) {
      if (mate == me_) continue;
      std::map<int64_t, int64_t> passes;
      int64_t all = 0;
      for (int m = 0; m < machines(); ++m) {
        for (const Entry& entry : ListOf(m * machine_ + PlaceOf(mate), MachineOf(me_))) {
          if (At(entry, me_).empty()) continue;
          ++passes[entry.token_pass];
          ++all;
        }
      }
      AddOnce(all, (2 * width + 2) * 4);
      AddRows(passes, token_row_);
      AddRows(passes, gradient_row_);
    }
  }

  // Results, and gradients of tokens and gate weights, of what this rank forwarded to its mates.
  void BackInsideMachine() {
    const int64_t width = std::min(s_.chosen, local_);
    for (int mate = MachineOf(me_) * machine_; mate < (MachineOf(me_) + 1) * machine_; ++mate) {
      if (mate == me_) continue;
      std::map<int64_t, int64_t> passes;
      int64_t tokens = 0;
      for (int m = 0; m < machines(); ++m) {
        for (const Entry& entry : ListOf(m * machine_ + PlaceOf(me_), MachineOf(me_))) {
          const std::vector<int32_t> there = At(entry, mate);
          passes[entry.result_pass] += ResultsOf(there, local_);
          tokens += there.empty() ? 0 : 1;
        }
      }
      AddRows(passes, act_row_);
      AddRows(passes, act_row_);
      AddOnce(tokens, width * 4);
    }
  }

  // The same of this rank's own tokens, from the ranks that it sent them to first.
  void BackFromOtherMachines() {
    const int64_t width = std::min(s_.chosen, machine_ * local_);
    for (int m = 0; m < machines(); ++m) {
      if (m == MachineOf(me_)) continue;
      const std::vector<Entry> list = ListOf(me_, m);
      std::map<int64_t, int64_t> passes;
      for (const Entry& entry : list) passes[entry.result_pass] += ResultsOf(entry.experts, machine_ * local_);
      AddRows(passes, act_row_);
      AddRows(passes, act_row_);
      AddOnce(static_cast<int64_t>(list.size()), width * 4);
    }
  }

  const ModelShape& s_;
  const std::vector<RankRecord>& records_;
  const std::vector<Rank> members_;
  const int me_;
  const int group_;
  int machine_ = 1;
  int64_t local_ = 1;  // experts of a rank
  int64_t act_row_ = 0, token_row_ = 0, gradient_row_ = 0;
  int64_t pass_tokens_ = 1, pass_results_ = 1;
  size_t dispatch_ = 0;
  Received received_;
};

}  // namespace

Received ExchangeReceived(const LayoutBooks& books, const std::vector<RankRecord>& ranks, Rank rank) {
  if (books.shape.experts == 0) return {};
  return Exchange(books, ranks, rank).All();
}

}  // namespace shoestring
