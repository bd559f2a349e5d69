// The backend that a run's config asks for, and how fast it multiplies.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "configs/schema/run.pb.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cuda_module.h"

namespace shoestring {

struct RunBackend {
  std::unique_ptr<Backend> backend;
  // What bits are promised within: the level of the processor's instructions, or the kind of GPU.
  std::string instruction_set;
};

// Where the environment says that the CUDA module and libraries lie: SHOESTRING_CUDA_MODULE, a file;
// SHOESTRING_CUDA_LIBRARY_PATH, folders separated by ':'; CUDA_HOME; an active Python environment (VIRTUAL_ENV). A
// folder is searched itself, and so are its lib64 and lib, and the nvidia/*/lib of Python packages in it.
CudaPlaces CudaPlacesOfEnvironment();

// UNAVAILABLE, NOT_FOUND, FAILED_PRECONDITION or RESOURCE_EXHAUSTED: the device that the config asks for cannot be had
// here; one line that says what is missing and how to mend it. Nothing else is ever used in its place.
// `threads`: of a rank on the CPU. `rank`: of this process; ranks take the visible GPUs in turn, and share them where
// there are fewer.
absl::StatusOr<RunBackend> OpenRunBackend(const config::RunConfig& config, Isa isa, int threads, int rank = 0);

// GFLOP/s of BF16 products of square matrices on a device, the best of a few; 0 if there is no memory to measure with.
// `side`: as large as gives a GPU its best rate; on a CPU that takes half a minute.
double MeasureDevicePeak(Backend& backend, int64_t side = 8192);

}  // namespace shoestring
