// The CPU backend: the whole menu on threads and vector instructions; the default, and how correctness is proved.
#pragma once

#include <memory>

#include "kernels/backend.h"

namespace shoestring {

struct CpuBackendOptions {
  int threads = 1;  // results never depend on it
};

std::unique_ptr<Backend> MakeCpuBackend(const CpuBackendOptions& options);

}  // namespace shoestring
