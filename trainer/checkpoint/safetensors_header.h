// The strict reader of a safetensors header's JSON: no document in memory, no duplicates, no surprises.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shoestring::safetensors_internal {

struct RawEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> data_offsets;
};

struct RawHeader {
  std::vector<RawEntry> entries;  // as in the text
  std::map<std::string, std::string> metadata;
};

// Checks the form only: what fields there are and of what types, and that no name is given twice. Errors: DATA_LOSS.
absl::StatusOr<RawHeader> ParseHeaderJson(absl::string_view json);

}  // namespace shoestring::safetensors_internal
