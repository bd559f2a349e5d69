// Counting sorts over the choices of tokens; stable, so that every order is by token inside.
#include "parallel/exchange_maps.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace shoestring {
namespace {

// fn(token, slot, expert, opens_row, opens_result) for every choice.
template <typename Fn>
void ForEachChoice(const ExpertSplit& split, int64_t chosen, const int32_t* experts, absl::Span<const IndexRange> runs,
                   Fn fn) {
  int64_t token = 0;
  for (const IndexRange& run : runs) {
    for (int64_t i = run.first; i < run.first + run.count; ++i, ++token) {
      int64_t previous = -1;
      for (int64_t slot = 0; slot < chosen; ++slot) {
        const int64_t expert = experts[i * chosen + slot];
        if (expert < 0) break;
        CHECK_GT(expert, previous);
        const bool opens_row = previous < 0 || split.DestinationOf(previous) != split.DestinationOf(expert);
        fn(token, slot, expert, opens_row, split.OpensResult(previous, expert));
        previous = expert;
      }
    }
  }
}

int64_t TokensOf(absl::Span<const IndexRange> runs) {
  return std::accumulate(runs.begin(), runs.end(), int64_t{0},
                         [](int64_t sum, const IndexRange& run) { return sum + run.count; });
}

}  // namespace

IndexRange EqualTo(const HostInts& sorted, int64_t begin, int64_t end, int64_t value) {
  const auto [first, last] = std::equal_range(sorted.data() + begin, sorted.data() + end, static_cast<int32_t>(value));
  return {first - (sorted.data() + begin), last - first};
}

bool ExpertSplit::Nested(int64_t expert) const {
  const int64_t group_first = GroupOf(expert) * experts_per_group - first_expert;
  const int64_t first = DestinationOf(expert) * experts_per_destination;
  return group_first >= first && group_first + experts_per_group <= first + experts_per_destination;
}

bool ExpertSplit::OpensResult(int64_t previous, int64_t expert) const {
  return previous < 0 || DestinationOf(previous) != DestinationOf(expert) || GroupOf(previous) != GroupOf(expert) ||
         !Nested(expert);
}

int64_t ExpertSplit::Width(int64_t chosen) const { return std::min(chosen, experts_per_destination); }

int64_t ExpertSplit::MaxDestinations(int64_t chosen) const { return std::min(chosen, destinations); }

int64_t ExpertSplit::MaxResults(int64_t chosen) const {
  const int64_t experts = destinations * experts_per_destination;
  const bool all_nested = experts_per_destination % experts_per_group == 0;
  return std::min(chosen, all_nested ? experts / experts_per_group : experts);
}

int64_t ExpertSplit::CountResults(const int32_t* ids, int64_t width) const {
  int64_t results = 0;
  int64_t previous = -1;
  for (int64_t k = 0; k < width && ids[k] >= 0; ++k) {
    results += OpensResult(previous, ids[k]) ? 1 : 0;
    previous = ids[k];
  }
  return results;
}

int64_t CutPasses(const ExpertSplit& split, const int32_t* ids, int64_t width, int64_t rows, int64_t max_results,
                  int32_t* row_pass) {
  int64_t pass = 0;
  int64_t results = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t more = split.CountResults(ids + row * width, width);
    CHECK_LE(more, max_results);
    if (results + more > max_results) {
      ++pass;
      results = 0;
    }
    results += more;
    row_pass[row] = static_cast<int32_t>(pass);
  }
  return rows == 0 ? 0 : pass + 1;
}

SourceMap::SourceMap(const ExpertSplit& split, int64_t max_tokens, int64_t chosen)
    : offsets(split.destinations + 1),
      result_offsets(split.destinations + 1),
      split_(split),
      chosen_(chosen),
      width_(split.Width(chosen)),
      next_row_(split.destinations),
      next_result_(split.destinations) {
  const int64_t max_rows = max_tokens * split.MaxDestinations(chosen);
  row_token = HostInts(max_rows);
  row_ids = HostInts(max_rows * width_);
  row_slot = HostInts(max_rows * width_);
  first_result = HostInts(max_rows + 1);
  slot_result = HostInts(max_tokens * chosen);
  slot_place = HostInts(max_tokens * chosen);
}

void SourceMap::Count(const int32_t* experts, absl::Span<const IndexRange> runs) {
  std::fill(offsets.begin(), offsets.end(), 0);
  std::fill(result_offsets.begin(), result_offsets.end(), 0);
  ForEachChoice(split_, chosen_, experts, runs,
                [&](int64_t, int64_t, int64_t expert, bool opens_row, bool opens_result) {
                  const int64_t destination = split_.DestinationOf(expert);
                  CHECK_LT(destination, split_.destinations);
                  offsets[destination + 1] += opens_row ? 1 : 0;
                  result_offsets[destination + 1] += opens_result ? 1 : 0;
                });
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  std::partial_sum(result_offsets.begin(), result_offsets.end(), result_offsets.begin());
}

void SourceMap::Build(const int32_t* experts, absl::Span<const IndexRange> runs) {
  Count(experts, runs);
  std::copy(offsets.begin(), offsets.end() - 1, next_row_.begin());
  std::copy(result_offsets.begin(), result_offsets.end() - 1, next_result_.begin());
  std::fill_n(row_ids.data(), rows() * width_, -1);
  std::fill_n(row_slot.data(), rows() * width_, 0);
  std::fill_n(slot_result.data(), TokensOf(runs) * chosen_, -1);
  std::fill_n(slot_place.data(), TokensOf(runs) * chosen_, 0);
  int64_t row = 0;
  int64_t place = 0;
  ForEachChoice(split_, chosen_, experts, runs,
                [&](int64_t token, int64_t slot, int64_t expert, bool opens_row, bool opens_result) {
                  const int64_t destination = split_.DestinationOf(expert);
                  if (opens_row) {
                    row = next_row_[destination]++;
                    place = 0;
                    row_token[row] = static_cast<int32_t>(token);
                    first_result[row] = static_cast<int32_t>(next_result_[destination]);
                  }
                  const int64_t at = row * width_ + place++;
                  const int64_t choice = token * chosen_ + slot;
                  row_ids[at] = static_cast<int32_t>(expert - destination * split_.experts_per_destination);
                  row_slot[at] = static_cast<int32_t>(choice);
                  slot_place[choice] = static_cast<int32_t>(at);
                  if (opens_result) slot_result[choice] = static_cast<int32_t>(next_result_[destination]++);
                });
  first_result[rows()] = static_cast<int32_t>(result_offsets.back());
}

ArrivalMap::ArrivalMap(const ExpertSplit& split, std::vector<int> region_lane, int64_t tokens_per_lane, int64_t chosen)
    : split_(split),
      region_lane_(std::move(region_lane)),
      width_(split.Width(chosen)),
      token_offsets_(region_lane_.size() + 1),
      lane_tokens_(region_lane_.size()),
      lane_offsets_(split.experts_per_destination * region_lane_.size() + 1),
      offsets_(split.experts_per_destination + 1),
      cursors_(lane_offsets_.size() - 1),
      run_first_(cursors_.size()),
      token_experts_(tokens_per_lane * regions() * width_),
      token_rows_(tokens_per_lane * regions() * width_),
      token_pass_(tokens_per_lane * regions()),
      result_pass_(tokens_per_lane * regions()) {
  CHECK_EQ(split.destinations, 1);
}

void ArrivalMap::SetCounts(int lane, int64_t tokens, const int32_t* expert_counts) {
  lane_tokens_[lane] = tokens;
  for (int64_t e = 0; e < split_.experts_per_destination; ++e) cursors_[e * regions() + lane] = expert_counts[e];
}

int64_t ArrivalMap::expected_tokens() const {
  return std::accumulate(lane_tokens_.begin(), lane_tokens_.end(), int64_t{0});
}

void ArrivalMap::Build(const int32_t* choices) {
  // Until here the cursors are counts.
  for (size_t i = 0; i < cursors_.size(); ++i) lane_offsets_[i + 1] = lane_offsets_[i] + cursors_[i];
  std::copy(lane_offsets_.begin(), lane_offsets_.end() - 1, cursors_.begin());
  for (size_t e = 0; e < offsets_.size(); ++e) offsets_[e] = lane_offsets_[e * regions()];
  for (int region = 0; region < regions(); ++region) {
    const int lane = region_lane_[region];
    token_offsets_[region + 1] = token_offsets_[region] + lane_tokens_[lane];
    for (int64_t token = token_offsets_[region]; token < token_offsets_[region + 1]; ++token) {
      const int32_t* choice = choices + token * ChoiceColumns(width_);
      for (int64_t place = 0; place < width_; ++place) {
        const int32_t expert = choice[place];
        CHECK_LT(expert, split_.experts_per_destination);
        token_experts_[token * width_ + place] = expert;
        token_rows_[token * width_ + place] = expert < 0 ? -1 : cursors_[expert * regions() + lane]++;
      }
      token_pass_[token] = choice[2 * width_];
      result_pass_[token] = choice[2 * width_ + 1];
    }
  }
  for (size_t i = 0; i < cursors_.size(); ++i) CHECK_EQ(cursors_[i], lane_offsets_[i + 1]);
}

void ArrivalMap::Clear() {
  std::fill(token_offsets_.begin(), token_offsets_.end(), 0);
  std::fill(lane_offsets_.begin(), lane_offsets_.end(), 0);
  std::fill(offsets_.begin(), offsets_.end(), 0);
}

void ArrivalMap::Expand(absl::Span<const IndexRange> tokens, HostInts& row_source, std::vector<IndexRange>& runs) {
  // Tokens are in order, hence so are the rows of one lane and expert: a run from the first one on.
  std::fill(run_first_.begin(), run_first_.end(), -1);
  int64_t staged = 0;
  for (int region = 0; region < regions(); ++region) {
    const int64_t begin = token_offsets_[region] + tokens[region].first;
    CHECK_LE(begin + tokens[region].count, token_offsets_[region + 1]);
    for (int64_t token = begin; token < begin + tokens[region].count; ++token, ++staged) {
      for (int64_t at = token * width_; at < (token + 1) * width_; ++at) {
        const int32_t row = token_rows_[at];
        if (row < 0) continue;
        row_source[row] = static_cast<int32_t>(staged);
        const int64_t key = token_experts_[at] * regions() + region_lane_[region];
        if (run_first_[key] < 0) run_first_[key] = row;
        cursors_[key] = row + 1;
      }
    }
  }
  runs.clear();
  for (size_t key = 0; key < run_first_.size(); ++key) {
    if (run_first_[key] < 0) continue;
    const int64_t count = cursors_[key] - run_first_[key];
    if (!runs.empty() && runs.back().first + runs.back().count == run_first_[key]) {
      runs.back().count += count;
    } else {
      runs.push_back({run_first_[key], count});
    }
  }
}

IndexRange ArrivalMap::TokensOfPass(int region, int64_t pass) const {
  return EqualTo(token_pass_, token_offsets_[region], token_offsets_[region + 1], pass);
}

IndexRange ArrivalMap::ResultTokensOfPass(int region, int64_t pass) const {
  return EqualTo(result_pass_, token_offsets_[region], token_offsets_[region + 1], pass);
}

int64_t ArrivalMap::ListResults(int region, const IndexRange& tokens, int32_t* members) const {
  int64_t results = 0;
  int64_t count = 0;  // members of the last result
  const int64_t first = token_offsets_[region] + tokens.first;
  for (int64_t token = first; token < first + tokens.count; ++token) {
    int64_t previous = -1;
    for (int64_t at = token * width_; at < (token + 1) * width_ && token_experts_[at] >= 0; ++at) {
      if (split_.OpensResult(previous, token_experts_[at])) {
        std::fill_n(members + results * width_, width_, -1);
        ++results;
        count = 0;
      }
      members[(results - 1) * width_ + count++] = token_rows_[at];
      previous = token_experts_[at];
    }
  }
  return results;
}

}  // namespace shoestring
