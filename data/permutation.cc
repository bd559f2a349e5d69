// An unbalanced Feistel network with cycle walking.
#include "data/permutation.h"

#include <bit>

#include "base/check.h"

namespace shoestring {
namespace {

constexpr int kRounds = 8;

uint64_t LowBits(uint64_t value, int bits) { return value & ((uint64_t{1} << bits) - 1); }

}  // namespace

Permutation::Permutation(const Rng& rng, int64_t size) : rng_(rng), size_(static_cast<uint64_t>(size)) {
  CHECK_GE(size, 1);
  CHECK_LE(size, int64_t{1} << 62);
  const int bits = std::bit_width(size_ - 1);
  left_bits_ = bits / 2;
  right_bits_ = bits - left_bits_;
}

int64_t Permutation::operator()(int64_t index) const {
  CHECK_GE(index, 0);
  CHECK_LT(static_cast<uint64_t>(index), size_);
  auto value = static_cast<uint64_t>(index);
  do {
    value = Round(value);
  } while (value >= size_);  // ends: the walk is a cycle through `index`, which is below the size
  return static_cast<int64_t>(value);
}

uint64_t Permutation::Round(uint64_t value) const {
  uint64_t left = value >> right_bits_;
  uint64_t right = LowBits(value, right_bits_);
  for (uint64_t round = 0; round < kRounds; ++round) {
    // Halves have at most 31 bits, so the round number fits above them.
    if (round % 2 == 0) {
      left ^= LowBits(rng_.Bits64((round << 32) | right), left_bits_);
    } else {
      right ^= LowBits(rng_.Bits64((round << 32) | left), right_bits_);
    }
  }
  return (left << right_bits_) | right;
}

}  // namespace shoestring
