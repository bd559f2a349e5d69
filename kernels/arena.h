// One block of memory a rank, taken once; every allocation in it has a purpose and a name, so that it can be printed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "kernels/tensor.h"

namespace shoestring {

// What memory is for; the rows of the table printed at start, and of the budget.
enum class Purpose {
  kMasterWeights,   // FP32 weights that the optimizer updates
  kComputeWeights,  // BF16 (later FP8) copies that the layers read
  kGradients,       // accumulators
  kMoments,         // AdamW m and v
  kEma,             // running mean of weights
  kActivations,     // what backward reads, per live micro-batch
  kPending,         // what deferred weight gradients still need
  kExchange,        // dispatch and combine buffers
  kScratch,         // lives within one action
  kData,            // token ids, targets, tables
};
constexpr int kPurposeCount = 10;
const char* Name(Purpose purpose);

// A stack of named allocations inside [base, base + capacity). Not thread-safe. Allocations are 64-byte aligned.
//
// An arena without memory (`Arena::Measuring()`) hands out addresses that must not be read or written: running the
// same allocating code on it yields the exact capacity needed (used with ShapeBackend; see kernels/shape_backend.h).
class Arena {
 public:
  static Arena Measuring();
  // `base` is aligned to 64 bytes; the memory belongs to the caller and outlives the arena.
  Arena(std::byte* base, int64_t capacity_bytes);

  // Aborts, with the table, when the capacity does not suffice. The bytes are whatever was there before.
  View Allocate(Purpose purpose, absl::string_view name, DType dtype, int64_t rows, int64_t cols);

  int64_t used_bytes() const { return used_bytes_; }
  int64_t high_water_bytes() const { return high_water_bytes_; }
  int64_t high_water_bytes(Purpose purpose) const { return by_purpose_high_[static_cast<int>(purpose)]; }
  bool measuring() const { return measuring_; }

  // After Freeze() only allocations inside a scope opened later are legal (they reuse the stack's tail), and names of
  // them are no longer kept; so the hot path touches no heap.
  void Freeze();

  // The table by purpose (peak bytes, share of the arena's peak, largest allocations by name), one line each; for the
  // start of a run. Purposes may peak at different times, so shares can add up to more than the whole.
  std::string Table() const;

 private:
  friend class ArenaScope;
  std::byte* base_ = nullptr;
  int64_t capacity_bytes_ = 0;
  int64_t used_bytes_ = 0;
  int64_t high_water_bytes_ = 0;
  std::array<int64_t, kPurposeCount> by_purpose_{};
  std::array<int64_t, kPurposeCount> by_purpose_high_{};
  std::map<std::pair<Purpose, std::string>, int64_t> largest_;  // bytes of the largest allocation of that name
  bool measuring_ = false;
  bool frozen_ = false;
  int scopes_ = 0;
  int scopes_when_frozen_ = 0;
};

// Everything allocated while a scope lives is given back when it ends.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena);
  ~ArenaScope();
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  int64_t used_bytes_;
  std::array<int64_t, kPurposeCount> by_purpose_;
};

}  // namespace shoestring
