// Replaces operator new by one that counts.
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

void* TryAllocate(size_t size) {
  ++Counter();
  return std::malloc(size == 0 ? 1 : size);
}

void* OrThrow(void* address) {
  if (address == nullptr) throw std::bad_alloc();
  return address;
}

void* Allocate(size_t size) { return OrThrow(TryAllocate(size)); }

void* TryAllocateAligned(size_t size, std::align_val_t alignment) {
  ++Counter();
  const auto step = static_cast<size_t>(alignment);
  return std::aligned_alloc(step, (size + step) / step * step);
}

void* AllocateAligned(size_t size, std::align_val_t alignment) { return OrThrow(TryAllocateAligned(size, alignment)); }

}  // namespace

int64_t HeapCalls() { return Counter(); }

}  // namespace shoestring

// Every form, though the standard's own call one another: those of the address sanitizer do not. Not inlined: the
// compiler would see new end in malloc, delete in free, and warn that they do not match.
#define SHOESTRING_OUT_OF_LINE __attribute__((noinline))

SHOESTRING_OUT_OF_LINE void* operator new(size_t size) { return shoestring::Allocate(size); }
SHOESTRING_OUT_OF_LINE void* operator new[](size_t size) { return shoestring::Allocate(size); }
SHOESTRING_OUT_OF_LINE void* operator new(size_t size, std::align_val_t alignment) {
  return shoestring::AllocateAligned(size, alignment);
}
SHOESTRING_OUT_OF_LINE void* operator new[](size_t size, std::align_val_t alignment) {
  return shoestring::AllocateAligned(size, alignment);
}
SHOESTRING_OUT_OF_LINE void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return shoestring::TryAllocate(size);
}
SHOESTRING_OUT_OF_LINE void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  return shoestring::TryAllocate(size);
}
SHOESTRING_OUT_OF_LINE void* operator new(size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return shoestring::TryAllocateAligned(size, alignment);
}
SHOESTRING_OUT_OF_LINE void* operator new[](size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return shoestring::TryAllocateAligned(size, alignment);
}
SHOESTRING_OUT_OF_LINE void operator delete(void* address) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete[](void* address) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete(void* address, size_t) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete[](void* address, size_t) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete(void* address, std::align_val_t) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete[](void* address, std::align_val_t) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete(void* address, size_t, std::align_val_t) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete[](void* address, size_t, std::align_val_t) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete(void* address, const std::nothrow_t&) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete[](void* address, const std::nothrow_t&) noexcept { std::free(address); }
SHOESTRING_OUT_OF_LINE void operator delete(void* address, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(address);
}
SHOESTRING_OUT_OF_LINE void operator delete[](void* address, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(address);
}
