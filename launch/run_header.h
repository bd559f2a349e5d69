// What every checkpoint of a run says about it.
#pragma once

#include "configs/schema/run.pb.h"
#include "launch/run_data.h"
#include "trainer/checkpoint/manifest.pb.h"

namespace shoestring {

// Config, hashes, data, layout: what stays the same over a run; the position is left out.
checkpoint::SnapshotHeader RunHeader(const config::RunConfig& config, const RunData& data, int64_t generation);

}  // namespace shoestring
