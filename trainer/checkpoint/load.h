// Reading checkpoints: nothing is used before all of it has been verified.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "trainer/checkpoint/manifest.pb.h"

namespace shoestring {

// A checkpoint whose manifest is good and whose files have the right sizes. Their content is not verified yet.
struct OpenedCheckpoint {
  std::string path;
  checkpoint::Manifest manifest;
  std::string manifest_sha256;  // 32 bytes

  const checkpoint::SnapshotHeader& header() const { return manifest.header(); }
};

// `path` is the directory of one checkpoint. Errors: DATA_LOSS naming the file, for anything that is missing or wrong;
// FAILED_PRECONDITION for the format of a later version; NOT_FOUND if there is no such directory; else the file
// system's.
absl::StatusOr<OpenedCheckpoint> OpenCheckpoint(FileSystem& fs, const std::string& path);

// Compares every block of one file with its checksum and hands each good one to `use(offset, bytes)`. DATA_LOSS names
// file and block; `use` has seen the blocks before it then.
absl::Status ForEachVerifiedBlock(FileSystem& fs, const OpenedCheckpoint& checkpoint, int file,
                                  absl::FunctionRef<void(int64_t, absl::string_view)> use);

// All files; the first problem.
absl::Status VerifyFiles(FileSystem& fs, const OpenedCheckpoint& checkpoint);

// The checkpoint that LATEST names, or without a LATEST the newest, all its blocks verified; or an error that says what
// to do. NOT_FOUND when there is none at all.
absl::StatusOr<OpenedCheckpoint> FindNewest(FileSystem& fs, const std::string& directory);

// As FindNewest, but goes back to the one before for each that is bad, and says so: as log lines, and in `passed_over`.
// Never goes to a step beyond LATEST. A checkpoint of a later version is an error, not a bad one.
absl::StatusOr<OpenedCheckpoint> FindNewestGood(FileSystem& fs, const std::string& directory,
                                                std::vector<std::string>& passed_over);

}  // namespace shoestring
