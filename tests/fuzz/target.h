// What the fuzz targets share: the entry point that libFuzzer calls, and how one input becomes several files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace shoestring {

inline absl::string_view Bytes(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// Two files in one input: two bytes of length (little-endian), the first file, then the second.
struct TwoFiles {
  absl::string_view first;
  absl::string_view second;
};
inline TwoFiles SplitInput(absl::string_view input) {
  if (input.size() < 2) return {};
  const size_t length = static_cast<uint8_t>(input[0]) | static_cast<size_t>(static_cast<uint8_t>(input[1])) << 8;
  input.remove_prefix(2);
  const absl::string_view first = input.substr(0, length);
  input.remove_prefix(first.size());
  return {first, input};
}

}  // namespace shoestring
