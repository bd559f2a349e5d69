// Index lists of the expert exchange between ranks, computed on the host from the experts that tokens chose.
//
// A *list* is what one rank sends to one destination: tokens in order, each once. A *result* is what travels back: the
// sum of a token's experts of one routing group where that group lies wholly in the destination, else one expert's row.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "base/check.h"
#include "kernels/tensor.h"
#include "parallel/mesh.h"

namespace shoestring {

// Whole numbers on the host, taken once; their contents are whatever was there before.
class HostInts {
 public:
  HostInts() = default;
  explicit HostInts(int64_t count) : values_(std::make_unique_for_overwrite<int32_t[]>(count)), count_(count) {}
  int32_t* data() { return values_.get(); }
  const int32_t* data() const { return values_.get(); }
  int64_t size() const { return count_; }
  int32_t& operator[](int64_t i) { return values_[Checked(i)]; }
  int32_t operator[](int64_t i) const { return values_[Checked(i)]; }

 private:
  int64_t Checked(int64_t i) const {
    CHECK(i >= 0 && i < count_);
    return i;
  }

  std::unique_ptr<int32_t[]> values_;
  int64_t count_ = 0;
};

// Where `value` stands in the ascending part [begin, end) of `sorted`, counted from `begin`.
IndexRange EqualTo(const HostInts& sorted, int64_t begin, int64_t end, int64_t value);

// Experts in equal neighbouring runs, one a destination. Ids count from the first expert of destination 0.
struct ExpertSplit {
  int64_t first_expert = 0;  // of destination 0, of the layer's experts
  int64_t destinations = 1;
  int64_t experts_per_destination = 1;
  int64_t experts_per_group = 1;

  int64_t DestinationOf(int64_t expert) const { return expert / experts_per_destination; }
  int64_t GroupOf(int64_t expert) const { return (first_expert + expert) / experts_per_group; }
  // Whether the expert's routing group lies wholly in its destination.
  bool Nested(int64_t expert) const;
  // Whether the result of `expert` is another one than that of `previous`, the token's expert before it.
  bool OpensResult(int64_t previous, int64_t expert) const;
  // Slots of a token of `chosen` that one destination may get.
  int64_t Width(int64_t chosen) const;
  // Destinations that one token of `chosen` may have.
  int64_t MaxDestinations(int64_t chosen) const;
  // Results of one token in all destinations.
  int64_t MaxResults(int64_t chosen) const;
  // Results of a token with these ids, `width` of them or fewer and then -1.
  int64_t CountResults(const int32_t* ids, int64_t width) const;
};

// The lists of one sender. Tokens are numbered from 0 in the order in which Build is told of them.
class SourceMap {
 public:
  SourceMap(const ExpertSplit& split, int64_t max_tokens, int64_t chosen);

  // `experts`: rows of `chosen` ids, ascending, -1 behind a row's last. `runs`: rows that are meant. Allocates nothing.
  void Build(const int32_t* experts, absl::Span<const IndexRange> runs);

  const ExpertSplit& split() const { return split_; }
  int64_t width() const { return width_; }
  int64_t rows() const { return offsets.back(); }  // of all lists

  // Filled by Build.
  std::vector<int64_t> offsets;         // [destinations + 1]: rows of each list
  std::vector<int64_t> result_offsets;  // [destinations + 1]: results of each list
  HostInts row_token;                   // [rows]
  HostInts row_ids;                     // [rows, width]: ids inside the destination, -1 behind a row's last
  HostInts row_slot;                    // [rows, width]: token * chosen + slot; 0 where there is none
  HostInts first_result;                // [rows + 1]
  HostInts slot_result;                 // [tokens, chosen]: the result that a slot opens, or -1
  HostInts slot_place;                  // [tokens, chosen]: row * width + place of a slot; 0 where there is none

 private:
  void Count(const int32_t* experts, absl::Span<const IndexRange> runs);

  const ExpertSplit split_;
  const int64_t chosen_;
  const int64_t width_;
  std::vector<int64_t> next_row_;
  std::vector<int64_t> next_result_;
};

// In which pass the rows of a list send their results: a pass takes whole tokens, as many as have together at most
// `max_results` results in the destinations of `split`. `ids`: rows of `width` ids. Writes a pass for each row; returns
// how many passes there are.
int64_t CutPasses(const ExpertSplit& split, const int32_t* ids, int64_t width, int64_t rows, int64_t max_results,
                  int32_t* row_pass);

// A choice as it travels: `width` ids inside the destination, -1 behind the last; as many gate weights (f32); the pass
// of the token, and that of its results.
constexpr int64_t ChoiceColumns(int64_t width) { return 2 * width + 2; }
// The gate weights among them.
inline View GateWeights(const View& choices, int64_t width) {
  return {choices.data + width * SizeOf(DType::kI32), DType::kF32, choices.rows, width, choices.stride};
}

// What arrives at a rank: tokens of each lane in order, lanes ("regions") in the order in which they arrive; and where
// the rows of a token lie among those of the rank's experts: by expert, then lane, then token.
class ArrivalMap {
 public:
  // `split`: of one destination, this rank. `region_lane`: the lane of each region.
  ArrivalMap(const ExpertSplit& split, std::vector<int> region_lane, int64_t tokens_per_lane, int64_t chosen);

  // From a lane: tokens that come, and of them those of each local expert.
  void SetCounts(int lane, int64_t tokens, const int32_t* expert_counts);
  // By these counts: of a region, of all.
  int64_t expected_tokens(int region) const { return lane_tokens_[region_lane_[region]]; }
  int64_t expected_tokens() const;
  // After SetCounts of all lanes. `choices`: ChoiceColumns(width) numbers of each token, by region. Aborts if they
  // contradict the counts.
  void Build(const int32_t* choices);
  // As if nothing had come.
  void Clear();

  int64_t width() const { return width_; }
  int regions() const { return static_cast<int>(region_lane_.size()); }
  int64_t tokens() const { return token_offsets_.back(); }
  int64_t first_token(int region) const { return token_offsets_[region]; }
  int64_t rows() const { return lane_offsets_[lane_offsets_.size() - 1]; }
  absl::Span<const int32_t> lane_offsets() const { return lane_offsets_; }  // [experts * lanes + 1]
  absl::Span<const int32_t> offsets() const { return offsets_; }            // [experts + 1]
  // [tokens, width]: the row of each choice, -1 where there is none.
  const HostInts& token_rows() const { return token_rows_; }

  // Some tokens of every region (numbered inside it) lie side by side, regions in order: writes to row_source[row] the
  // place of each row's token, and to `runs` the neighbouring rows that these are, in order.
  void Expand(absl::Span<const IndexRange> tokens, HostInts& row_source, std::vector<IndexRange>& runs);
  // Tokens of a region (numbered inside it) that come in a pass, and those whose results are sent in one.
  IndexRange TokensOfPass(int region, int64_t pass) const;
  IndexRange ResultTokensOfPass(int region, int64_t pass) const;
  // The rows of the results of some of the region's tokens, `width` numbers each, -1 behind the last. Returns how many.
  int64_t ListResults(int region, const IndexRange& tokens, int32_t* members) const;

 private:
  const ExpertSplit split_;
  const std::vector<int> region_lane_;
  const int64_t width_;
  std::vector<int64_t> token_offsets_;  // by region
  std::vector<int64_t> lane_tokens_;    // by lane
  std::vector<int32_t> lane_offsets_;
  std::vector<int32_t> offsets_;
  std::vector<int32_t> cursors_;  // by expert, then lane: the next row
  std::vector<int32_t> run_first_;
  HostInts token_experts_;  // [tokens, width]
  HostInts token_rows_;
  HostInts token_pass_;  // [tokens]
  HostInts result_pass_;
};

}  // namespace shoestring
