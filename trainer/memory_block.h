// The one block of memory that a rank's arena lies in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace shoestring {

// Zeroed, given back at the end. Movable.
class MemoryBlock {
 public:
  // Where the backend computes. RESOURCE_EXHAUSTED says how much was wanted.
  static absl::StatusOr<MemoryBlock> Take(Backend& backend, int64_t size_bytes);
  // Of the host; huge pages are asked for where the system has them.
  static absl::StatusOr<MemoryBlock> Map(int64_t size_bytes);

  std::byte* data() const { return memory_->data(); }
  int64_t size_bytes() const { return memory_->size_bytes(); }

 private:
  explicit MemoryBlock(std::unique_ptr<Memory> memory) : memory_(std::move(memory)) {}
  std::unique_ptr<Memory> memory_;
};

}  // namespace shoestring
