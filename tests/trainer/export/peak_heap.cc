// The allocator is asked how large each block is, so that delete needs no size.
#include "tests/trainer/export/peak_heap.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace shoestring {
namespace {

struct Counters {
  std::atomic<int64_t> live{0};
  std::atomic<int64_t> peak{0};
};

// operator new takes no argument that a counter could be passed in: this is the one thing shared by the whole program.
Counters& Shared() {
  static Counters* const counters = new (std::malloc(sizeof(Counters))) Counters();
  return *counters;
}

void* Taken(void* address) {
  if (address == nullptr) throw std::bad_alloc();
  const auto bytes = static_cast<int64_t>(malloc_usable_size(address));
  const int64_t live = Shared().live.fetch_add(bytes) + bytes;
  int64_t peak = Shared().peak;
  while (peak < live && !Shared().peak.compare_exchange_weak(peak, live)) {
  }
  return address;
}

void Give(void* address) {
  Shared().live -= static_cast<int64_t>(malloc_usable_size(address));
  std::free(address);
}

}  // namespace

int64_t HeapBytes() { return Shared().live; }
int64_t PeakHeapBytes() { return Shared().peak; }
void RestartPeak() { Shared().peak = Shared().live.load(); }

}  // namespace shoestring

// Not inlined: the compiler would see new end in malloc, delete in free, and warn that they do not match.
__attribute__((noinline)) void* operator new(size_t size) {
  return shoestring::Taken(std::malloc(size == 0 ? 1 : size));
}
__attribute__((noinline)) void* operator new(size_t size, std::align_val_t alignment) {
  const auto step = static_cast<size_t>(alignment);
  return shoestring::Taken(std::aligned_alloc(step, (size + step) / step * step));
}
// What std::stable_sort asks; a sanitizer would take it for its own, and not what ends it.
__attribute__((noinline)) void* operator new(size_t size, const std::nothrow_t&) noexcept {
  void* const address = std::malloc(size == 0 ? 1 : size);
  return address == nullptr ? nullptr : shoestring::Taken(address);
}
__attribute__((noinline)) void operator delete(void* address) noexcept { shoestring::Give(address); }
__attribute__((noinline)) void operator delete(void* address, size_t) noexcept { shoestring::Give(address); }
__attribute__((noinline)) void operator delete(void* address, std::align_val_t) noexcept { shoestring::Give(address); }
__attribute__((noinline)) void operator delete(void* address, size_t, std::align_val_t) noexcept {
  shoestring::Give(address);
}
