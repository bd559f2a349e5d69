// Reading parameters from memory and from checkpoints.
#include "trainer/export/weight_source.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "trainer/checkpoint/safetensors.h"

namespace shoestring {
namespace {

absl::Status CheckParameter(const Parameter& parameter, DType dtype, int64_t elements) {
  if (dtype != DType::kF32 && dtype != DType::kBF16) {
    return absl::FailedPreconditionError(absl::StrCat(parameter.name, " is ", Name(dtype), "; f32 or bf16 is needed"));
  }
  if (elements == parameter.elements()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(parameter.name, " has ", elements, " elements, the model says ", parameter.elements()));
}

}  // namespace

absl::StatusOr<DType> MemoryWeights::DTypeOfParameter(const Parameter& parameter) {
  const auto found = views_.find(parameter.name);
  if (found == views_.end()) return absl::FailedPreconditionError(absl::StrCat(parameter.name, " is missing"));
  RETURN_IF_ERROR(CheckParameter(parameter, found->second.dtype, found->second.elements()));
  return found->second.dtype;
}

absl::Status MemoryWeights::Read(const Parameter& parameter, int64_t first, int64_t count, char* out) {
  const ConstView& view = views_.at(parameter.name);
  CHECK(view.contiguous());
  CHECK_LE(first + count, view.elements());
  const int64_t size = SizeOf(view.dtype);
  std::memcpy(out, view.data + first * size, static_cast<size_t>(count * size));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CheckpointWeights>> CheckpointWeights::Open(FileSystem& fs,
                                                                           const OpenedCheckpoint& checkpoint,
                                                                           StateKind kind) {
  CHECK(kind == StateKind::kWeights || kind == StateKind::kEma);
  RETURN_IF_ERROR(VerifyFiles(fs, checkpoint));
  ASSIGN_OR_RETURN(StoredTensors stored, StoredTensors::Open(fs, checkpoint));
  return std::unique_ptr<CheckpointWeights>(new CheckpointWeights(checkpoint, std::move(stored), kind));
}

int CheckpointWeights::Find(const Parameter& parameter) const {
  return stored_.Find(parameter.trained ? kind_ : StateKind::kBias, parameter.name);
}

absl::StatusOr<DType> CheckpointWeights::DTypeOfParameter(const Parameter& parameter) {
  const int index = Find(parameter);
  if (index < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(checkpoint_.path, ": holds no ", Name(kind_), " of ", parameter.name));
  }
  const checkpoint::Tensor& tensor = checkpoint_.manifest.tensors(index);
  const DType dtype = *DTypeOfSafetensorsName(tensor.dtype());  // the manifest was checked for it
  int64_t elements = 1;
  for (const int64_t dimension : tensor.shape()) elements *= dimension;
  RETURN_IF_ERROR(WithContext(CheckParameter(parameter, dtype, elements), checkpoint_.path));
  return dtype;
}

absl::Status CheckpointWeights::Read(const Parameter& parameter, int64_t first, int64_t count, char* out) {
  const int index = Find(parameter);
  const int64_t size = SizeOf(*DTypeOfSafetensorsName(checkpoint_.manifest.tensors(index).dtype()));
  return stored_.Read(index, first * size, count * size, out);
}

}  // namespace shoestring
