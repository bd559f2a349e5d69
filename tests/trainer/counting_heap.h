// Counts the heap allocations of a test program that links counting_heap.cc.
#pragma once

#include <cstdint>

namespace shoestring {

// Calls of operator new so far, by any thread.
int64_t HeapCalls();

}  // namespace shoestring
