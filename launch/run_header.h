// What every checkpoint of a run says about it.
#pragma once

#include <optional>
#include <string>

#include "configs/schema/run.pb.h"
#include "launch/run_data.h"
#include "trainer/checkpoint/manifest.pb.h"

namespace shoestring {

// Config, hashes, data, layout, instruction set (RunBackend): what stays the same over a start; the position is left
// out.
checkpoint::SnapshotHeader RunHeader(const config::RunConfig& config, const RunData& data, int64_t generation,
                                     const std::string& instruction_set);

// A line that warns where a checkpoint of one level of instructions goes on under another: allowed, but the bits will
// not be those of a run that never stopped. Nothing where the levels are equal, or the checkpoint does not say its own.
std::optional<std::string> InstructionSetWarning(const checkpoint::SnapshotHeader& saved,
                                                 const checkpoint::SnapshotHeader& current);

}  // namespace shoestring
