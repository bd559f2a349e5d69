// Where exported weights come from: the memory of a run, or the files of a checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "kernels/tensor.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/checkpoint/stored_tensors.h"
#include "trainer/params.h"

namespace shoestring {

// Parameters by the names of the table, F32 or BF16, row-major.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // FAILED_PRECONDITION naming the parameter when it is not there or has other elements than the table says.
  virtual absl::StatusOr<DType> DTypeOfParameter(const Parameter& parameter) = 0;
  // Elements [first, first + count) of a parameter for which DTypeOfParameter succeeded, into `out`.
  virtual absl::Status Read(const Parameter& parameter, int64_t first, int64_t count, char* out) = 0;
};

// Contiguous host memory, which must outlive the object.
class MemoryWeights final : public WeightSource {
 public:
  explicit MemoryWeights(std::map<std::string, ConstView> views) : views_(std::move(views)) {}
  absl::StatusOr<DType> DTypeOfParameter(const Parameter& parameter) override;
  absl::Status Read(const Parameter& parameter, int64_t first, int64_t count, char* out) override;

 private:
  std::map<std::string, ConstView> views_;
};

// Reads from the files piece by piece. Routing biases come from their own kind whatever the other kind is.
class CheckpointWeights final : public WeightSource {
 public:
  // `kind` is kWeights or kEma. Verifies all blocks. The checkpoint must outlive the object.
  static absl::StatusOr<std::unique_ptr<CheckpointWeights>> Open(FileSystem& fs, const OpenedCheckpoint& checkpoint,
                                                                 StateKind kind);
  absl::StatusOr<DType> DTypeOfParameter(const Parameter& parameter) override;
  absl::Status Read(const Parameter& parameter, int64_t first, int64_t count, char* out) override;

 private:
  CheckpointWeights(const OpenedCheckpoint& checkpoint, StoredTensors stored, StateKind kind)
      : checkpoint_(checkpoint), stored_(std::move(stored)), kind_(kind) {}
  int Find(const Parameter& parameter) const;

  const OpenedCheckpoint& checkpoint_;
  StoredTensors stored_;
  const StateKind kind_;
};

}  // namespace shoestring
