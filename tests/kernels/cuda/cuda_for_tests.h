// A GPU for tests that are written for tensors of the host; or the reason why there is none.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace shoestring {

// Whether this build has the CUDA module at all: only then are there tests of it, to be run or skipped.
bool CudaModuleIsBuilt();

// The GPU of this process, opened once. Errors as CudaModule's.
absl::StatusOr<Backend*> CudaForTests();

// Ends the case as skipped where there is no GPU to be had, and says what is needed; any other failure is one of the
// case.
#define SKIP_WITHOUT_GPU(status)                              \
  do {                                                        \
    const absl::Status& gpu = (status);                       \
    ASSERT_TRUE(gpu.ok() || absl::IsUnavailable(gpu)) << gpu; \
    if (!gpu.ok()) GTEST_SKIP() << gpu.message();             \
  } while (false)

// The same for operands in the host's memory, each of which is copied to device memory of its own before an operation,
// whole extents with the gaps between rows, and back after it. So the tests of the CPU are tests of the GPU too, and a
// memory checker sees every access beside a tensor. Slow, and each operation waits for the device.
absl::StatusOr<std::unique_ptr<Backend>> MirroredCudaForTests();

}  // namespace shoestring
