// How much heap a test program holds at most: replaces operator new and delete where it is linked.
#pragma once

#include <cstdint>

namespace shoestring {

int64_t HeapBytes();      // live, by any thread
int64_t PeakHeapBytes();  // the most that were live since the last RestartPeak
void RestartPeak();       // the peak is what is live now

}  // namespace shoestring
