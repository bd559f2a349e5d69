// Reads a run's config: files merged left to right, then --set overrides; every problem at once, with its place.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "configs/problem.h"
#include "configs/schema/run.pb.h"

namespace shoestring::config {

inline constexpr int64_t kMaxConfigBytes = 1 << 20;
inline constexpr int kMaxConfigDepth = 32;  // messages inside messages

struct LoadedConfig {
  RunConfig config;
  Locations locations;  // for problems that Validate() finds
};

// Reads protobuf text files and merges them left to right: a scalar of a later file replaces the earlier one, messages
// merge field by field, a repeated field that a later file mentions replaces the earlier one whole (plain protobuf
// merging would append, so that a second file could never shorten a list of phases). Then applies the overrides in
// order; their syntax is in override.h. Does not validate: see validate.h.
// Errors: INVALID_ARGUMENT with one line a problem: absent or unreadable file, directory, above 1 MiB, invalid UTF-8,
// syntax, unknown names (all of them, with the nearest name), overrides. Unknown names are all found; after a syntax
// error the rest of that file is not looked at.
absl::StatusOr<LoadedConfig> LoadConfig(FileSystem& fs, const std::vector<std::string>& files,
                                        const std::vector<std::string>& overrides);

// The same for text in memory; `source` is the name that problems give it.
absl::StatusOr<LoadedConfig> ParseConfig(absl::string_view text, const std::string& source,
                                         const std::vector<std::string>& overrides = {});

// Parses text into any message of the schema, adding problems and, when `locations` is not null, places.
void ParseText(absl::string_view text, const std::string& source, google::protobuf::Message& message,
               Locations* locations, std::vector<Problem>& problems);

}  // namespace shoestring::config
