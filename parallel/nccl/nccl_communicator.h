// The communicator between GPUs: NCCL's verbs under deadlines.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"
#include "parallel/nccl/engine.h"
#include "parallel/nccl/library.h"

namespace shoestring {

// Joins the group and returns when all members have; errors as NcclEngine::Create. `library` speaks for this member's
// device and lives as long as the process. Streams are that device's, views lie in its memory; those
// with gaps between rows are packed.
//
// Deadlines run on the device's time too: a watching thread sees calls complete, and where one does not in time, or
// NCCL reports that a peer is gone, it aborts the communicator, which ends the kernels that wait; so
// Backend::Synchronize returns, and the next call here, or status(), says what happened. What the failed call was to
// bring is then undefined. Every other member has to abort as well and does so by its own deadlines. After that the
// group is built anew: destroy this object, agree on a fresh NcclId, call MakeNcclCommunicator again.
//
// Sums: reduce-scatter and all-reduce add f32, f64 or i64 in an order that NCCL chooses by size and topology; the
// same for the same layout, so they serve FAST mode only.
absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(NcclLibrary& library, NcclOptions options);

}  // namespace shoestring
