// Counts the heap allocations of a test program: replaces operator new in each that links test_counting_heap.
#pragma once

#include <cstdint>

namespace shoestring {

// Calls of operator new so far, of any form and by any thread.
int64_t HeapCalls();

}  // namespace shoestring
