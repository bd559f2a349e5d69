// What the command line shows of checkpoints: one line each, or everything about one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "trainer/checkpoint/manifest.pb.h"

namespace shoestring {

// Of one checkpoint, without reading its tensors.
struct CheckpointSummary {
  int64_t step = 0;
  std::string path;
  bool is_latest = false;
  bool beyond_latest = false;  // of a future that was given up
  std::string problem;         // empty: manifest and sizes are good; then the rest is set
  int64_t size_bytes = 0;
  int64_t consumed_tokens = 0;
  std::string state_digest;  // hexadecimal

  std::string ToString() const;  // one line
};
// Rising steps. Errors: the file system's, of the directory itself.
absl::StatusOr<std::vector<CheckpointSummary>> ListCheckpoints(FileSystem& fs, const std::string& directory);

// Everything that can be known about one checkpoint. Never fails: what is wrong is in `problems`.
struct CheckReport {
  std::string path;
  std::vector<std::string> problems;  // each names file and, where there is one, block
  checkpoint::Manifest manifest;      // empty if it could not be read
  int64_t blocks = 0;                 // verified good
  int64_t size_bytes = 0;
  std::string state_digest;  // recomputed from the files; empty if they are not good
  std::string parent;        // what became of the parent: "step_0000100: matches", "... : is gone", "none"

  bool ok() const { return problems.empty(); }
  std::string ToString() const;  // several lines, ending in "good" or "BAD"
};
CheckReport CheckCheckpoint(FileSystem& fs, const std::string& path);

}  // namespace shoestring
