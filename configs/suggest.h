// What a misspelt name probably meant.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"

namespace shoestring::config {

// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other.
int EditDistance(absl::string_view a, absl::string_view b);

// The candidate nearest to `word`, or "" when none is near enough to be meant (a third of its letters, at least 2).
std::string Nearest(absl::string_view word, const std::vector<std::string>& candidates);

// A hint for a field that `type` does not have: the message that has a field of just this name ("it is a
// field of model.moe"), or the field of `type` that was probably meant, or the fields there are.
std::string UnknownFieldHint(const google::protobuf::Descriptor& type, absl::string_view name);

// A hint for a value that an enum does not have.
std::string UnknownEnumHint(const google::protobuf::EnumDescriptor& type, absl::string_view name);

}  // namespace shoestring::config
