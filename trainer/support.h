// What this build can run: a config may be right and still ask for more than is here.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "configs/schema/run.pb.h"

namespace shoestring {

// One line for each thing that this build refuses, "field: reason; remedy". Empty: it can run.
std::vector<std::string> FindUnsupported(const config::RunConfig& config);

// INVALID_ARGUMENT with all those lines; exit code 78. `config` is one that the validator found right.
absl::Status CheckSupported(const config::RunConfig& config);

}  // namespace shoestring
