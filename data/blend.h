// Which source a sample of a weighted blend comes from, and which sample of that source it is: one look-up.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace shoestring {

struct BlendPick {
  int64_t source = 0;
  int64_t sample = 0;  // of that source
};

// Shares are exact after each period; inside a period the greedy rule of docs/formats/shards.md decides. A value type.
class Blend {
 public:
  // Weights above 0, finite, relative to each other; 1 to 4096 of them. INVALID_ARGUMENT otherwise.
  static absl::StatusOr<Blend> Create(absl::Span<const double> weights);

  // A pure function; source s gets its samples 0, 1, 2, ... in order.
  BlendPick At(int64_t sample) const;
  int64_t period() const { return static_cast<int64_t>(table_.size()); }
  // Samples of source `source` in a period: its achieved share is this over period().
  int64_t PerPeriod(int64_t source) const { return per_period_[static_cast<size_t>(source)]; }

 private:
  struct Entry {
    int32_t source;
    int32_t rank;  // samples of that source earlier in the period
  };
  explicit Blend(std::vector<int64_t> per_period);

  std::vector<int64_t> per_period_;
  std::vector<Entry> table_;  // one a sample of a period
};

}  // namespace shoestring
