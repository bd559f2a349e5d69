// The sign rule, in integers.
#include "trainer/bias_update.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace shoestring {

void UpdateBias(absl::Span<const int64_t> counts, double speed, absl::Span<float> bias) {
  CHECK_EQ(counts.size(), bias.size());
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const auto experts = static_cast<int64_t>(counts.size());
  const float up = static_cast<float>(speed);
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t scaled = experts * counts[i];
    if (scaled < total) bias[i] += up;
    if (scaled > total) bias[i] -= up;
  }
}

double MaxOverMean(absl::Span<const int64_t> counts) {
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (total == 0) return 0.0;
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  return static_cast<double>(most) * static_cast<double>(counts.size()) / static_cast<double>(total);
}

}  // namespace shoestring
