// From the files of a verified checkpoint into the tensors of a run, whatever slices the files hold.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/snapshot.h"

namespace shoestring {

// In SnapshotHeader::layout of a run whose sums follow its layout (train.reduction: FAST).
inline constexpr absl::string_view kFastSums = "FAST sums";

enum class Coverage {
  kWholeState,  // the checkpoint must hold exactly these tensors; the digest of the result is verified
  kPart,        // tensors of the checkpoint that are not asked for are skipped
};

// Names every tensor that is missing, unknown (kWholeState), or of another shape or dtype. FAILED_PRECONDITION.
absl::Status CheckTensors(const checkpoint::Manifest& manifest, const std::vector<StateTensor>& tensors,
                          Coverage coverage);

// Verifies all files, then fills the tensors, verifying every block again on its way. On an error (those of
// CheckTensors, DATA_LOSS, the file system's) the tensors' content is undefined.
absl::Status ReadState(FileSystem& fs, const OpenedCheckpoint& checkpoint, const std::vector<StateTensor>& tensors,
                       Coverage coverage);

// Differences between the run that wrote a checkpoint and the run that wants to continue it. FAILED_PRECONDITION,
// naming every field, when one of them changes a bit of the result; else the harmless ones, a line each.
absl::StatusOr<std::vector<std::string>> CompareRuns(const checkpoint::SnapshotHeader& saved,
                                                     const checkpoint::SnapshotHeader& current);

}  // namespace shoestring
