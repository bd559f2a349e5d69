// The one validator of configs: every problem of a config at once, each with its place and how to mend it.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "configs/problem.h"
#include "configs/schema/run.pb.h"

namespace shoestring::config {

// Static legality: what the schema demands of each field, and the rules between fields (docs/numerics.md: lanes, batch
// units, expert groups; shapes; schedules). Whether this build and this machine can run the config is decided by those
// who run it. `locations` names the places; without it problems name fields only.
std::vector<Problem> FindProblems(const RunConfig& config, const Locations& locations = {});

// The same as a status: INVALID_ARGUMENT with one line a problem.
absl::Status Validate(const RunConfig& config, const Locations& locations = {});

}  // namespace shoestring::config
