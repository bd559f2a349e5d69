// Replaces operator new by one that counts; the forms not named here call one of these.
#include "tests/base/counting_heap.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace shoestring {
namespace {

// operator new takes no argument that a counter could be passed in: this is the one thing shared by the whole program.
std::atomic<int64_t>& Counter() {
  static std::atomic<int64_t>* const calls = new (std::malloc(sizeof(std::atomic<int64_t>))) std::atomic<int64_t>(0);
  return *calls;
}

void* Counted(void* address) {
  ++Counter();
  if (address == nullptr) throw std::bad_alloc();
  return address;
}

}  // namespace

int64_t HeapCalls() { return Counter(); }

}  // namespace shoestring

// Not inlined: the compiler would see new end in malloc, delete in free, and warn that they do not match.
__attribute__((noinline)) void* operator new(size_t size) {
  return shoestring::Counted(std::malloc(size == 0 ? 1 : size));
}
__attribute__((noinline)) void* operator new(size_t size, std::align_val_t alignment) {
  const auto step = static_cast<size_t>(alignment);
  return shoestring::Counted(std::aligned_alloc(step, (size + step) / step * step));
}
__attribute__((noinline)) void operator delete(void* address) noexcept { std::free(address); }
__attribute__((noinline)) void operator delete(void* address, size_t) noexcept { std::free(address); }
__attribute__((noinline)) void operator delete(void* address, std::align_val_t) noexcept { std::free(address); }
__attribute__((noinline)) void operator delete(void* address, size_t, std::align_val_t) noexcept { std::free(address); }
