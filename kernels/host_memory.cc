// mmap and munmap.
#include "kernels/host_memory.h"

#include <sys/mman.h>

namespace shoestring {
namespace {

class HostMemory final : public Memory {
 public:
  HostMemory(std::byte* data, int64_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  ~HostMemory() override {
    if (data_ != nullptr) munmap(data_, size_bytes_);
  }
  std::byte* data() const override { return data_; }
  int64_t size_bytes() const override { return size_bytes_; }

 private:
  std::byte* const data_;
  const int64_t size_bytes_;
};

}  // namespace

std::unique_ptr<Memory> MapHostMemory(int64_t size_bytes) {
  if (size_bytes == 0) return std::make_unique<HostMemory>(nullptr, 0);
  void* address = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  madvise(address, size_bytes, MADV_HUGEPAGE);  // advice: a system without huge pages goes on without
  return std::make_unique<HostMemory>(static_cast<std::byte*>(address), size_bytes);
}

}  // namespace shoestring
