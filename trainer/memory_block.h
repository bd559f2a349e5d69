// The one block of memory that a rank's arena lies in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

namespace shoestring {

// Pages straight from the system, zeroed, given back at the end. Movable.
class MemoryBlock {
 public:
  // RESOURCE_EXHAUSTED says how much was wanted. Huge pages are asked for where the system has them.
  static absl::StatusOr<MemoryBlock> Map(int64_t size_bytes);
  MemoryBlock(MemoryBlock&& other) noexcept;
  MemoryBlock& operator=(MemoryBlock&&) = delete;
  ~MemoryBlock();

  std::byte* data() const { return data_; }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  MemoryBlock(std::byte* data, int64_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  std::byte* data_;
  int64_t size_bytes_;
};

}  // namespace shoestring
