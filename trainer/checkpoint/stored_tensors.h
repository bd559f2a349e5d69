// Where in its files a checkpoint keeps each tensor, and reading any part of one without the rest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/snapshot.h"

namespace shoestring {

std::string StoredName(const checkpoint::Tensor& tensor);

// A slice as the manifest lists it, found in its file.
struct StoredSlice {
  int tensor = 0;     // index into the manifest's tensors
  int slice = 0;      // of that tensor
  int64_t begin = 0;  // bytes in the file
  int64_t end = 0;
};

// Of one file, in the order of their bytes. DATA_LOSS when the file's own header and the manifest disagree in anything:
// a tensor, its dtype, its shape.
absl::StatusOr<std::vector<StoredSlice>> LocateSlices(const OpenedCheckpoint& checkpoint, int file,
                                                      const SafetensorsFile& shard);

// Random access to the tensors of a checkpoint. Does not verify blocks: call VerifyFiles first. The checkpoint must
// outlive the object. Thread-safe.
class StoredTensors {
 public:
  static absl::StatusOr<StoredTensors> Open(FileSystem& fs, const OpenedCheckpoint& checkpoint);

  // Index into the manifest's tensors; -1 if there is none.
  int Find(StateKind kind, absl::string_view name) const;
  // Reads `size` bytes of the whole tensor, from its byte `begin` on, whatever slices it is cut into.
  absl::Status Read(int tensor, int64_t begin, int64_t size, char* out) const;

 private:
  explicit StoredTensors(const OpenedCheckpoint& checkpoint) : checkpoint_(&checkpoint) {}
  absl::Status ReadRow(int tensor, int64_t row, int64_t begin, int64_t size, char* out) const;

  const OpenedCheckpoint* checkpoint_;
  std::vector<SafetensorsFile> shards_;
  std::vector<std::vector<StoredSlice>> slices_;  // of each tensor
};

// The digest of a state, recomputed from the files: 32 bytes.
absl::StatusOr<std::string> DigestOfFiles(FileSystem& fs, const OpenedCheckpoint& checkpoint);

}  // namespace shoestring
