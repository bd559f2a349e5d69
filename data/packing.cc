// Best-fit decreasing with bins kept by the room that is left in them.
#include "data/packing.h"

#include <limits>
#include <set>

#include "base/check.h"

namespace shoestring {
namespace {

// Indices by falling length, equal lengths in their order: a counting sort, because lengths are small numbers.
std::vector<int32_t> ByFallingLength(absl::Span<const int32_t> lengths, int32_t capacity) {
  std::vector<int64_t> start(static_cast<size_t>(capacity) + 2, 0);
  for (const int32_t length : lengths) {
    CHECK_GT(length, 0);
    CHECK_LE(length, capacity);
    ++start[static_cast<size_t>(capacity - length) + 1];
  }
  for (size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
  std::vector<int32_t> order(lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    order[static_cast<size_t>(start[static_cast<size_t>(capacity - lengths[i])]++)] = static_cast<int32_t>(i);
  }
  return order;
}

// Bin of each piece, bins numbered as they are opened.
std::vector<int32_t> AssignBins(absl::Span<const int32_t> lengths, int32_t capacity) {
  std::vector<int32_t> bin_of(lengths.size());
  std::vector<std::vector<int32_t>> bins_with_room(static_cast<size_t>(capacity) + 1);
  std::set<int32_t> rooms;  // those with at least one bin; full bins are left out
  int32_t bins = 0;
  for (const int32_t piece : ByFallingLength(lengths, capacity)) {
    const int32_t length = lengths[static_cast<size_t>(piece)];
    const auto best = rooms.lower_bound(length);
    int32_t room = capacity;
    int32_t bin = bins;
    if (best == rooms.end()) {
      ++bins;
    } else {
      room = *best;
      std::vector<int32_t>& candidates = bins_with_room[static_cast<size_t>(room)];
      bin = candidates.back();
      candidates.pop_back();
      if (candidates.empty()) rooms.erase(best);
    }
    bin_of[static_cast<size_t>(piece)] = bin;
    const int32_t left = room - length;
    if (left == 0) continue;
    bins_with_room[static_cast<size_t>(left)].push_back(bin);
    rooms.insert(left);
  }
  return bin_of;
}

}  // namespace

PackedBins PackBestFit(absl::Span<const int32_t> lengths, int32_t capacity) {
  CHECK_GT(capacity, 0);
  CHECK_LT(lengths.size(), static_cast<size_t>(std::numeric_limits<int32_t>::max()));
  std::vector<int32_t> bin_of = AssignBins(lengths, capacity);
  // Renumber by first piece, so that writing the bins walks through the documents roughly in their order.
  std::vector<int32_t> renumbered;
  PackedBins packed;
  for (int32_t& bin : bin_of) {
    if (static_cast<size_t>(bin) >= renumbered.size()) renumbered.resize(static_cast<size_t>(bin) + 1, -1);
    int32_t& number = renumbered[static_cast<size_t>(bin)];
    if (number < 0) {
      number = static_cast<int32_t>(packed.bin_ends.size());
      packed.bin_ends.push_back(0);
    }
    bin = number;
    ++packed.bin_ends[static_cast<size_t>(bin)];
  }
  std::vector<int64_t> next(packed.bin_ends.size());
  int64_t end = 0;
  for (size_t bin = 0; bin < next.size(); ++bin) {
    next[bin] = end;
    end += packed.bin_ends[bin];
    packed.bin_ends[bin] = end;
  }
  packed.pieces.resize(lengths.size());
  for (size_t piece = 0; piece < bin_of.size(); ++piece) {
    packed.pieces[static_cast<size_t>(next[static_cast<size_t>(bin_of[piece])]++)] = static_cast<int32_t>(piece);
  }
  return packed;
}

}  // namespace shoestring
