// Draws the decision and the cut points from the counter-based generator.
#include "data/fim.h"

#include <algorithm>

#include "base/rng.h"

namespace shoestring {
namespace {

bool StartsCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

FimSplit SplitForFim(absl::string_view text, uint64_t seed, int64_t document_id, double rate) {
  const Rng rng(seed, RngPurpose::kFim, static_cast<uint64_t>(document_id));
  FimSplit split;
  if (rng.Uniform(0) >= rate) return split;
  split.applied = true;
  const auto characters = static_cast<uint64_t>(std::count_if(text.begin(), text.end(), StartsCharacter));
  uint64_t first = rng.Below(1, characters + 1);
  uint64_t second = rng.Below(2, characters + 1);
  if (first > second) std::swap(first, second);
  // One pass finds both byte offsets: the byte where character number n starts, or the end.
  size_t first_byte = text.size(), second_byte = text.size();
  uint64_t seen = 0;
  for (size_t i = 0; i < text.size() && seen <= second; ++i) {
    if (!StartsCharacter(text[i])) continue;
    if (seen == first) first_byte = i;
    if (seen == second) second_byte = i;
    ++seen;
  }
  split.prefix = text.substr(0, first_byte);
  split.middle = text.substr(first_byte, second_byte - first_byte);
  split.suffix = text.substr(second_byte);
  return split;
}

}  // namespace shoestring
