// Compares what ranks have after a step with the whole that they should have, by bits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "parallel/mesh.h"
#include "trainer/verify/step_tensors.h"

namespace shoestring {

// An element that is not what it should be.
struct Difference {
  int64_t step = 0;     // counted from 1
  int tensor = 0;       // of ListStepTensors
  int64_t element = 0;  // of the whole tensor; -1: known by digests alone
  Rank rank;
  uint64_t expected = 0;  // bits
  uint64_t found = 0;
};

// Bits of one element, as its value: "0.0123456789 (0x3c4a4588)".
std::string BitsAsText(DType dtype, uint64_t bits);
// How many numbers of the type lie between the two, the second one counted (units in the last place); of integers their
// distance. -0 and +0 are one apart; NaNs lie beyond the infinities, in the order of their bits.
uint64_t UnitsApart(DType dtype, uint64_t a, uint64_t b);

// Parts that together are every tensor of a list, in order.
class WholeTensors {
 public:
  // Replaces the content. INTERNAL if an element of a tensor is absent or there twice.
  absl::Status Assemble(const std::vector<StepTensor>& tensors, const std::vector<const StepParts*>& ranks);
  const std::vector<TensorPart>& fragments(int tensor) const { return fragments_[tensor]; }
  // SHA-256 of its bytes, in hexadecimal.
  std::string Sha256Of(int tensor) const;

 private:
  std::vector<std::vector<TensorPart>> fragments_;  // of each tensor, in order
};

// The first element of each tensor in which `kept` differs, in the order of `kept`, which has each tensor once at most
// on a rank.
std::vector<Difference> CompareParts(const std::vector<TensorPart>& kept, const WholeTensors& expected, int64_t step,
                                     Rank rank);

// Step, then tensor, element, rank.
bool ComesBefore(const Difference& a, const Difference& b);

}  // namespace shoestring
