// mmap and munmap.
#include "trainer/memory_block.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shoestring {

absl::StatusOr<MemoryBlock> MemoryBlock::Map(int64_t size_bytes) {
  if (size_bytes == 0) return MemoryBlock(nullptr, 0);
  void* address = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("taking ", size_bytes, " bytes of memory for the run: ",
                                                     std::strerror(errno), "; use a smaller model or micro-batch"));
  }
  madvise(address, size_bytes, MADV_HUGEPAGE);  // advice: a system without huge pages goes on without
  return MemoryBlock(static_cast<std::byte*>(address), size_bytes);
}

MemoryBlock::MemoryBlock(MemoryBlock&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MemoryBlock::~MemoryBlock() {
  if (data_ != nullptr) munmap(data_, size_bytes_);
}

}  // namespace shoestring
