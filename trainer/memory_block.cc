// Taking the block, and saying why there is none.
#include "trainer/memory_block.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/host_memory.h"

namespace shoestring {
namespace {

absl::Status Exhausted(int64_t size_bytes, absl::string_view whose) {
  return absl::ResourceExhaustedError(absl::StrCat("taking ", size_bytes, " bytes of ", whose, " for the run: ",
                                                   std::strerror(errno), "; use a smaller model or micro-batch"));
}

}  // namespace

absl::StatusOr<MemoryBlock> MemoryBlock::Take(Backend& backend, int64_t size_bytes) {
  std::unique_ptr<Memory> memory = backend.Allocate(size_bytes);
  if (memory == nullptr) {
    return Exhausted(size_bytes, backend.memory_is_hosts() ? "memory" : "the device's memory");
  }
  return MemoryBlock(std::move(memory));
}

absl::StatusOr<MemoryBlock> MemoryBlock::Map(int64_t size_bytes) {
  std::unique_ptr<Memory> memory = MapHostMemory(size_bytes);
  if (memory == nullptr) return Exhausted(size_bytes, "memory");
  return MemoryBlock(std::move(memory));
}

}  // namespace shoestring
