// The weight files of a Hugging Face directory: found, opened, and known by the names of their tensors.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/safetensors.h"

namespace shoestring {

// A JSON file of the directory. DATA_LOSS with the path in front: more than 64 MiB, not strict JSON
// (base/strict_json.h), not an object; else the file system's errors.
absl::StatusOr<nlohmann::json> ReadHfJson(FileSystem& fs, const std::string& path);

// Thread-safe once opened. Holds one open file a weight file, and their headers, nothing else.
class HfFiles {
 public:
  // The files that model.safetensors.index.json names, or model.safetensors where there is no index. DATA_LOSS for what
  // is not whole, for a file name that leaves the directory, and where index and files disagree; else the file
  // system's.
  static absl::StatusOr<HfFiles> Open(FileSystem& fs, const std::string& directory);

  const SafetensorsEntry* Find(const std::string& name) const;  // null if there is none
  // Sorted.
  std::vector<std::string> Names() const;
  // Bytes [begin, begin + size) of a tensor that is there.
  absl::Status Read(const std::string& name, int64_t begin, int64_t size, char* out) const;

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::pair<size_t, SafetensorsEntry>> where_;
};

}  // namespace shoestring
