// A keyed permutation of 0 .. n-1 that gives any of its values at once, with no table.
#pragma once

#include <cstdint>

#include "base/rng.h"

namespace shoestring {

// A Feistel network over the smallest power of two that holds n, eight rounds of Philox (base/rng.h), walked until the
// value is below n: fewer than two walks on average. A value type.
class Permutation {
 public:
  // `size` in 1 .. 2^62. Permutations of other generators, or of another seed, purpose or stream, are unrelated.
  Permutation(const Rng& rng, int64_t size);
  // A bijection of [0, size).
  int64_t operator()(int64_t index) const;

 private:
  uint64_t Round(uint64_t value) const;

  Rng rng_;
  uint64_t size_;
  int left_bits_;
  int right_bits_;
};

}  // namespace shoestring
