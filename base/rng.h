// Counter-based random numbers: any number is a function of (seed, purpose, stream, index), on any layout and device.
//
// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11, section 4.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace shoestring {

// What a random number is for; two purposes never share numbers. Values are part of the numerics: never renumber.
enum class RngPurpose : uint32_t {
  kInit = 1,        // stream: hash of the parameter's name; index: element
  kShuffle = 2,     // stream: data set and epoch
  kFim = 3,         // stream: document
  kTokenSplit = 4,  // stream: document
  kSample = 6,      // text generation
  kTest = 7,
  kHoldOut = 8,  // stream: document
  kFormula = 9,  // index: 2 * sample, + 1: tokens without shards (trainer/verify)
};

using Philox4 = std::array<uint32_t, 4>;

inline Philox4 Philox(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

// A value type: copy it freely, it has no position.
class Rng {
 public:
  Rng(uint64_t seed, RngPurpose purpose, uint64_t stream)
      : key0_(static_cast<uint32_t>(seed)),
        key1_(static_cast<uint32_t>(seed >> 32) ^ (static_cast<uint32_t>(purpose) * 0x9E3779B9u)),
        stream_(stream) {}

  // Four independent 32-bit numbers of block `index`.
  Philox4 Block(uint64_t index) const {
    return Philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(stream_),
                   static_cast<uint32_t>(stream_ >> 32)},
                  key0_, key1_);
  }
  uint64_t Bits64(uint64_t index) const {
    const Philox4 b = Block(index);
    return (uint64_t{b[1]} << 32) | b[0];
  }
  // Uniform in [0, 1), 53 bits.
  double Uniform(uint64_t index) const { return static_cast<double>(Bits64(index) >> 11) * 0x1.0p-53; }
  // Uniform integer in [0, bound), bound > 0, by Lemire's multiplication (bias below 2^-64 * bound).
  uint64_t Below(uint64_t index, uint64_t bound) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Bits64(index)) * bound) >> 64);
  }
  // Standard normal by Box-Muller in double; one block gives one number.
  double Normal(uint64_t index) const {
    const Philox4 b = Block(index);
    const uint64_t hi = (uint64_t{b[1]} << 32) | b[0];
    const uint64_t lo = (uint64_t{b[3]} << 32) | b[2];
    const double u = (static_cast<double>(hi >> 11) + 1.0) * 0x1.0p-53;  // (0, 1]
    const double v = static_cast<double>(lo >> 11) * 0x1.0p-53;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * v);
  }

 private:
  uint32_t key0_, key1_;
  uint64_t stream_;
};

}  // namespace shoestring
