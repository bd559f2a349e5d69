// The module's factory for NCCL, called.
#include "parallel/nccl/open_library.h"

#include "absl/strings/str_cat.h"

namespace shoestring {

absl::StatusOr<NcclLibrary*> OpenNcclLibrary(const CudaModule& module, int device) {
  auto* const make = reinterpret_cast<NcclMakeLibraryFunction*>(module.Find(kCudaMakeNcclSymbol));
  if (make == nullptr) return absl::FailedPreconditionError(absl::StrCat(module.path(), ": knows no NCCL"));
  CudaFailure failure;
  NcclLibrary* const library = make(device, failure);
  if (library == nullptr) return absl::FailedPreconditionError(failure.message);
  return library;
}

}  // namespace shoestring
