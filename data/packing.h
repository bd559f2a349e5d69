// Packs pieces of documents whole into sequences: best fit in falling order of length.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace shoestring {

struct PackedBins {
  std::vector<int32_t> pieces;    // indices of pieces, bin after bin, rising inside a bin
  std::vector<int64_t> bin_ends;  // end of each bin in `pieces`; bins in the order of their first piece
  int64_t bins() const { return static_cast<int64_t>(bin_ends.size()); }
};

// Every piece goes into exactly one bin; no bin holds more than `capacity`. `lengths` are in 1 .. capacity, fewer than
// 2^31 of them. Best-fit decreasing (Ding et al. 2024, arXiv 2404.10830): each piece, longest first, goes to the bin
// with the least room that still holds it. Time O(n log capacity); deterministic.
PackedBins PackBestFit(absl::Span<const int32_t> lengths, int32_t capacity);

}  // namespace shoestring
