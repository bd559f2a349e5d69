// The arena: a pointer that moves up, what each purpose holds, and the table that shows it.
#include "kernels/arena.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace shoestring {
namespace {

constexpr int64_t kAlignment = 64;  // a cache line, and a full vector register
// Measuring arenas start where no mapping of a user process lies, so that a stray access faults at once.
constexpr uintptr_t kMeasuringBase = uintptr_t{1} << 60;
constexpr int64_t kMeasuringCapacity = int64_t{1} << 59;
constexpr size_t kNamesPerLine = 3;

int64_t RoundUp(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::string Mebibytes(int64_t bytes) { return absl::StrFormat("%.3f MiB", static_cast<double>(bytes) / (1 << 20)); }

}  // namespace

const char* Name(Purpose purpose) {
  switch (purpose) {
    case Purpose::kMasterWeights: return "master_weights";
    case Purpose::kComputeWeights: return "compute_weights";
    case Purpose::kGradients: return "gradients";
    case Purpose::kMoments: return "moments";
    case Purpose::kEma: return "ema";
    case Purpose::kActivations: return "activations";
    case Purpose::kPending: return "pending";
    case Purpose::kExchange: return "exchange";
    case Purpose::kScratch: return "scratch";
    case Purpose::kData: return "data";
  }
  CHECK(false);
  return "";
}

Arena Arena::Measuring() {
  Arena arena(reinterpret_cast<std::byte*>(kMeasuringBase), kMeasuringCapacity);
  arena.measuring_ = true;
  return arena;
}

Arena::Arena(std::byte* base, int64_t capacity_bytes) : base_(base), capacity_bytes_(capacity_bytes) {
  CHECK_EQ(reinterpret_cast<uintptr_t>(base) % kAlignment, 0u);
  CHECK_GE(capacity_bytes, 0);
}

View Arena::Allocate(Purpose purpose, absl::string_view name, DType dtype, int64_t rows, int64_t cols) {
  CHECK_GE(rows, 0);
  CHECK_GE(cols, 0);
  if (frozen_ && scopes_ <= scopes_when_frozen_) {
    internal::CheckFailed(__FILE__, __LINE__,
                          absl::StrCat("arena: ", name, " is allocated after Freeze() outside a scope"));
  }
  const int64_t bytes = RoundUp(BytesOf(dtype, rows * cols));
  if (bytes > capacity_bytes_ - used_bytes_) {
    internal::CheckFailed(__FILE__, __LINE__,
                          absl::StrCat("arena: ", name, " needs ", bytes, " bytes, but ", used_bytes_, " of ",
                                       capacity_bytes_, " are taken\n", Table()));
  }
  const View view(base_ + used_bytes_, dtype, rows, cols);
  used_bytes_ += bytes;
  high_water_bytes_ = std::max(high_water_bytes_, used_bytes_);
  const int index = static_cast<int>(purpose);
  by_purpose_[index] += bytes;
  by_purpose_high_[index] = std::max(by_purpose_high_[index], by_purpose_[index]);
  if (!frozen_) {
    int64_t& largest = largest_[{purpose, std::string(name)}];
    largest = std::max(largest, bytes);
  }
  return view;
}

void Arena::Freeze() {
  frozen_ = true;
  scopes_when_frozen_ = scopes_;
}

std::string Arena::Table() const {
  std::string table = absl::StrFormat("%-16s %18s %7s  %s\n", "purpose", "peak", "share", "largest");
  const double whole = static_cast<double>(std::max<int64_t>(high_water_bytes_, 1));
  for (int i = 0; i < kPurposeCount; ++i) {
    if (by_purpose_high_[i] == 0) continue;
    const Purpose purpose = static_cast<Purpose>(i);
    std::vector<std::pair<int64_t, std::string>> members;
    for (const auto& [key, bytes] : largest_) {
      if (key.first == purpose) members.emplace_back(-bytes, key.second);  // descending bytes, then name
    }
    const size_t shown = std::min(members.size(), kNamesPerLine);
    std::partial_sort(members.begin(), members.begin() + static_cast<int64_t>(shown), members.end());
    std::string names;
    for (size_t m = 0; m < shown; ++m) {
      absl::StrAppend(&names, m == 0 ? "" : ", ", members[m].second, " ", Mebibytes(-members[m].first));
    }
    absl::StrAppendFormat(&table, "%-16s %18s %6.2f%%  %s\n", Name(purpose), Mebibytes(by_purpose_high_[i]),
                          100.0 * static_cast<double>(by_purpose_high_[i]) / whole, names);
  }
  absl::StrAppendFormat(&table, "%-16s %18s\n", "arena", Mebibytes(high_water_bytes_));
  return table;
}

ArenaScope::ArenaScope(Arena& arena) : arena_(arena), used_bytes_(arena.used_bytes_), by_purpose_(arena.by_purpose_) {
  ++arena_.scopes_;
}

ArenaScope::~ArenaScope() {
  --arena_.scopes_;
  arena_.used_bytes_ = used_bytes_;
  arena_.by_purpose_ = by_purpose_;
}

}  // namespace shoestring
