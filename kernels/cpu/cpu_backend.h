// The CPU backend: the whole menu on threads and vector instructions; the default, and how correctness is proved.
#pragma once

#include <memory>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_features.h"

namespace shoestring {

struct CpuBackendOptions {
  int threads = 1;         // results never depend on it
  Isa isa = DefaultIsa();  // bits are promised within one level; a level that this machine lacks aborts
  int spin = 2000;         // ThreadPool's: 0 where ranks outnumber cores
};

std::unique_ptr<Backend> MakeCpuBackend(const CpuBackendOptions& options);

}  // namespace shoestring
