// Replaces operator new by one that counts; the forms not named here call this one.
#include "tests/trainer/counting_heap.h"

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

}  // namespace

int64_t HeapCalls() { return Counter(); }

}  // namespace shoestring

void* operator new(size_t size) {
  ++shoestring::Counter();
  void* address = std::malloc(size == 0 ? 1 : size);
  if (address == nullptr) throw std::bad_alloc();
  return address;
}
void operator delete(void* address) noexcept { std::free(address); }
void operator delete(void* address, size_t) noexcept { std::free(address); }
