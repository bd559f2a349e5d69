// Saving and reading a state of which every rank holds a part (docs/formats/checkpoint.md, "Many ranks").
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "kernels/backend.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/save.h"
#include "trainer/rank_links.h"
#include "trainer/train_state.h"

namespace shoestring {

// A rank's side of a save. All ranks of the world call it at the same step: rank 0 writes the checkpoint and asks the
// others for their parts, a block at a time; it alone gets what was saved. Where it fails the others get ABORTED.
// `header`, with the position of `state`, and `fs` matter on rank 0.
absl::StatusOr<SavedCheckpoint> SaveShared(FileSystem& fs, const std::string& directory,
                                           const checkpoint::SnapshotHeader& header, const TrainState& state,
                                           Backend& backend, Stream& stream, const RankLinks& links,
                                           const SaveOptions& options = {});

// Fills what this rank keeps from a checkpoint whose files the caller has verified (VerifyFiles); any layout may have
// written it. Errors: those of CheckTensors, and the file system's. Then call RefreshCompute.
absl::Status ReadShared(FileSystem& fs, const OpenedCheckpoint& checkpoint, const RankLinks& links, Backend& backend,
                        Stream& stream, TrainState& state);

}  // namespace shoestring
