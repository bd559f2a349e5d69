// Opening the module that was built beside the tests.
#include "tests/kernels/cuda/cuda_for_tests.h"

#include <filesystem>
#include <utility>

#include "base/status_macros.h"
#include "kernels/cuda_module.h"
#include "tests/kernels/cuda/mirror_backend.h"

namespace shoestring {
namespace {

// Enough for every shape of the tests, and small beside 512 MiB a stream.
constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;

absl::StatusOr<std::unique_ptr<Backend>> Open() {
#ifdef SHOESTRING_CUDA_MODULE
  // Where it was built; in a bundle, where programs look for it.
  const bool built_here = std::filesystem::exists(SHOESTRING_CUDA_MODULE);
  ASSIGN_OR_RETURN(const CudaModule module,
                   CudaModule::Open({.module = built_here ? SHOESTRING_CUDA_MODULE : "", .directories = {}}));
  return module.MakeBackend({.device = 0, .workspace_bytes = kWorkspaceBytes});
#else
  return absl::UnavailableError("this build has no CUDA module");
#endif
}

}  // namespace

bool CudaModuleIsBuilt() {
#ifdef SHOESTRING_CUDA_MODULE
  return true;
#else
  return false;
#endif
}

absl::StatusOr<Backend*> CudaForTests() {
  // Never destroyed: at the end of a process the driver may be gone already.
  static const auto* const opened = new absl::StatusOr<std::unique_ptr<Backend>>(Open());
  if (!opened->ok()) return opened->status();
  return (*opened)->get();
}

absl::StatusOr<std::unique_ptr<Backend>> MirroredCudaForTests() {
  ASSIGN_OR_RETURN(Backend* const device, CudaForTests());
  return std::unique_ptr<Backend>(std::make_unique<MirrorBackend>(*device));
}

}  // namespace shoestring
