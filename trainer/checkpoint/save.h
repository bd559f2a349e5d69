// Writing checkpoints: streamed, summed on the way, and whole under their name or not there at all.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "trainer/checkpoint/snapshot.h"

namespace shoestring {

struct SaveOptions {
  int64_t block_bytes = int64_t{4} << 20;  // of checksums, and the largest piece that is written at once
};

// Puts bytes [begin, begin + size) of a tensor into `buffer`, at most block_bytes: the same ones every time.
using TensorReader = std::function<absl::Status(const StateTensor&, int64_t begin, int64_t size, std::string& buffer)>;

struct SavedCheckpoint {
  std::string path;
  int64_t size_bytes = 0;    // of all its files
  std::string state_digest;  // as StateDigest gives it
  bool was_there = false;    // the same state of the same run stood there already; nothing was written but LATEST
};

// Saves the snapshot as `directory`/step_N and lets LATEST name it; creates the directory. The snapshot must not change
// meanwhile. Only one process may write to a directory. After OK the checkpoint is durable; after an error (the file
// system's) LATEST names what it named before, or, where step N existed with another state, the checkpoint before that.
// With `read`, views say the dtype only and bytes come from there, so that a state larger than memory can be saved.
absl::StatusOr<SavedCheckpoint> SaveCheckpoint(FileSystem& fs, const std::string& directory, const Snapshot& snapshot,
                                               const SaveOptions& options = {}, const TensorReader& read = {});

}  // namespace shoestring
