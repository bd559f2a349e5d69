// One --set of the command line: path=value or path+=value.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "configs/problem.h"
#include "configs/schema/run.pb.h"

namespace shoestring::config {

// Applies "train.phase[0].sequence_length=128" to the config. The path is dotted; an element of a repeated field has
// its index in brackets. `=` replaces a field (a message or a list whole), `+=` appends to a repeated field. The value
// is protobuf text: a number, a name, a string with or without quotes, "{ ... }" for a message, "[ ... ]" for a list;
// an empty value after `=` unsets the field. Messages on the way are created. Adds a problem, and leaves the config as
// it was, when the path or the value is not legal.
void ApplyOverride(absl::string_view text, RunConfig& config, Locations& locations, std::vector<Problem>& problems);

}  // namespace shoestring::config
