// Memory of the host for arenas: pages straight from the system.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/backend.h"

namespace shoestring {

// Zeroed pages, huge ones where the system has them. Null, and errno, if there are not so many.
std::unique_ptr<Memory> MapHostMemory(int64_t size_bytes);

}  // namespace shoestring
