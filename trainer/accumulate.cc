// The canonical tree over accumulator sets and over losses.
#include "trainer/accumulate.h"

#include <algorithm>
#include <bit>

namespace shoestring {
namespace {

// Parameters start at multiples of this many elements (64 bytes), as arena allocations do.
constexpr int64_t kAlignElements = 16;

int64_t Padded(int64_t elements) { return (elements + kAlignElements - 1) / kAlignElements * kAlignElements; }

double LaneSum(const double* values, int64_t waves) {
  double sum = 0.0;
  for (int64_t wave = 0; wave < waves; ++wave) sum += values[wave];
  return sum;
}

}  // namespace

int AccumulatorSets(int64_t lanes) {
  int most = 0;
  for (int64_t done = 0; done < lanes; ++done) most = std::max(most, std::popcount(static_cast<uint64_t>(done)) + 1);
  return most;
}

double CanonicalSum(const double* values, int64_t lanes, int64_t waves) {
  CHECK_GE(lanes, 1);
  if (lanes == 1) return LaneSum(values, waves);
  const int64_t left = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(lanes - 1)));
  return CanonicalSum(values, left, waves) + CanonicalSum(values + left * waves, lanes - left, waves);
}

GradientSet AllocateGradientSet(Arena& arena, const std::vector<Parameter>& table) {
  int64_t total = 0;
  for (const Parameter& p : table) total += p.trained ? p.uses * Padded(p.elements()) : 0;
  GradientSet set;
  set.whole = arena.Allocate(Purpose::kGradients, "gradient accumulators", DType::kF32, 1, total);
  int64_t next = 0;
  for (const Parameter& p : table) {
    std::vector<View>& uses = set.views.emplace_back();
    for (int use = 0; p.trained && use < p.uses; ++use) {
      uses.push_back(set.whole.Columns(next, p.elements()).Reshape(p.stack * p.rows, p.cols));
      next += Padded(p.elements());
    }
  }
  return set;
}

GradientSum::GradientSum(Backend& backend, Stream& stream, Arena& arena, const std::vector<Parameter>& table,
                         int64_t lanes)
    : backend_(backend), stream_(stream), lanes_(lanes) {
  for (int i = 0; i < AccumulatorSets(lanes); ++i) {
    sets_.push_back(AllocateGradientSet(arena, table));
    free_.push_back(i);
  }
}

const GradientSet& GradientSum::BeginLane() {
  CHECK_LT(current_, 0);
  CHECK(!free_.empty());
  current_ = free_.back();
  free_.pop_back();
  backend_.Zero(stream_, sets_[current_].whole);
  return sets_[current_];
}

void GradientSum::EndLane() {
  CHECK_GE(current_, 0);
  fold_.Push(current_, [this](int left, int right) { Merge(left, right); });
  current_ = -1;
  ++lanes_done_;
}

const GradientSet& GradientSum::Finish() {
  CHECK_EQ(lanes_done_, lanes_);
  lanes_done_ = 0;
  const int sum = fold_.Finish([this](int left, int right) { Merge(left, right); });
  free_.push_back(sum);
  AddUses(sets_[sum]);
  return sets_[sum];
}

void GradientSum::Merge(int left, int right) {
  backend_.Add(stream_, sets_[left].whole, sets_[right].whole, sets_[left].whole);
  free_.push_back(right);
}

void GradientSum::AddUses(const GradientSet& set) {
  for (const std::vector<View>& uses : set.views) {
    for (size_t use = 1; use < uses.size(); ++use) backend_.Add(stream_, uses[0], uses[use], uses[0]);
  }
}

}  // namespace shoestring
