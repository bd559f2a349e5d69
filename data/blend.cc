// Weights to whole numbers, and the table of one period.
#include "data/blend.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace shoestring {
namespace {

constexpr int64_t kLongestPeriod = 65536;
constexpr size_t kMostSources = 4096;

int64_t Sum(const std::vector<int64_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

// The weights times `scale`, divided by their greatest common divisor, if that gives whole numbers with a short period;
// else nothing.
std::vector<int64_t> ExactShares(absl::Span<const double> weights, double scale) {
  std::vector<int64_t> shares;
  int64_t divisor = 0;
  for (const double weight : weights) {
    const double scaled = weight * scale;
    const double whole = std::round(scaled);
    // A decimal fraction is not exact in binary: accept what is one to twelve digits.
    if (whole < 1.0 || whole > 1e15 || std::abs(scaled - whole) > 1e-12 * whole) return {};
    shares.push_back(static_cast<int64_t>(whole));
    divisor = std::gcd(divisor, shares.back());
  }
  int64_t period = 0;
  for (int64_t& share : shares) {
    share /= divisor;
    if (share > kLongestPeriod - period) return {};
    period += share;
  }
  return shares;
}

// Whole numbers of sum kLongestPeriod nearest to the weights (largest remainder), none below 1.
std::vector<int64_t> NearestShares(absl::Span<const double> weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> shares;
  std::vector<std::pair<double, size_t>> remainders;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double exact = weights[i] / total * static_cast<double>(kLongestPeriod);
    shares.push_back(std::max<int64_t>(1, static_cast<int64_t>(std::floor(exact))));
    remainders.push_back({static_cast<double>(shares.back()) - exact, i});
  }
  std::sort(remainders.begin(), remainders.end());  // most deserving first, equal ones in their order
  for (size_t next = 0; Sum(shares) < kLongestPeriod; next = (next + 1) % remainders.size()) {
    ++shares[remainders[next].second];
  }
  // Raising the smallest to 1 may have overdrawn: the largest pay.
  while (Sum(shares) > kLongestPeriod) --*std::max_element(shares.begin(), shares.end());
  return shares;
}

std::vector<int64_t> WholeShares(absl::Span<const double> weights) {
  for (double scale = 1.0; scale <= 1e6; scale *= 10.0) {
    std::vector<int64_t> shares = ExactShares(weights, scale);
    if (!shares.empty()) return shares;
  }
  return NearestShares(weights);
}

}  // namespace

absl::StatusOr<Blend> Blend::Create(absl::Span<const double> weights) {
  if (weights.empty() || weights.size() > kMostSources) {
    return absl::InvalidArgumentError(
        absl::StrCat("a blend has 1 to ", kMostSources, " sources, not ", weights.size()));
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0.0) || weights[i] > 1e12) {
      return absl::InvalidArgumentError(
          absl::StrCat("the weight of source ", i, " is ", weights[i], "; it must be above 0 and at most 1e12"));
    }
  }
  return Blend(WholeShares(weights));
}

Blend::Blend(std::vector<int64_t> per_period) : per_period_(std::move(per_period)) {
  const int64_t period = Sum(per_period_);
  std::vector<int64_t> counts(per_period_.size(), 0);
  table_.reserve(static_cast<size_t>(period));
  for (int64_t i = 0; i < period; ++i) {
    size_t best = counts.size();
    int64_t best_error = 0;
    for (size_t s = 0; s < counts.size(); ++s) {
      if (counts[s] == per_period_[s]) continue;
      const int64_t error = per_period_[s] * std::max<int64_t>(i, 1) - counts[s] * period;
      if (best < counts.size() && error <= best_error) continue;
      best = s;
      best_error = error;
    }
    table_.push_back({static_cast<int32_t>(best), static_cast<int32_t>(counts[best])});
    ++counts[best];
  }
}

BlendPick Blend::At(int64_t sample) const {
  CHECK_GE(sample, 0);
  const Entry& entry = table_[static_cast<size_t>(sample % period())];
  return {entry.source, sample / period() * PerPeriod(entry.source) + entry.rank};
}

}  // namespace shoestring
