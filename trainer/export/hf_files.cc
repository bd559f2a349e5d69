// Index and files looked at together: each tensor must be where the index says, and nowhere else.
#include "trainer/export/hf_files.h"

#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strict_json.h"
#include "configs/hf_config.h"
#include "trainer/checkpoint/manifest.h"

namespace shoestring {
namespace {

constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr absl::string_view kIndexFile = "model.safetensors.index.json";

absl::StatusOr<std::map<std::string, std::string>> ReadIndex(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadHfJson(fs, path));
  if (!json.contains("weight_map") || !json.at("weight_map").is_object()) {
    return absl::DataLossError(absl::StrCat(path, ": has no object weight_map"));
  }
  std::map<std::string, std::string> file_of;
  for (const auto& [tensor, file] : json.at("weight_map").items()) {
    if (!file.is_string() || !IsPlainName(file.get<std::string>())) {
      return absl::DataLossError(absl::StrCat(path, ": weight_map.", absl::CHexEscape(tensor), " is no file name"));
    }
    file_of[tensor] = file.get<std::string>();
  }
  return file_of;
}

}  // namespace

absl::StatusOr<nlohmann::json> ReadHfJson(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path, config::kMaxHfJsonBytes));
  absl::StatusOr<nlohmann::json> json = ParseStrictJson(text);
  if (!json.ok()) return absl::DataLossError(absl::StrCat(path, ": ", json.status().message()));
  if (!json->is_object()) return absl::DataLossError(absl::StrCat(path, ": is not a JSON object"));
  return json;
}

absl::StatusOr<HfFiles> HfFiles::Open(FileSystem& fs, const std::string& directory) {
  HfFiles files;
  std::map<std::string, std::string> file_of;  // from the index; empty without one
  const bool indexed = Exists(fs, JoinPath(directory, kIndexFile));
  std::set<std::string> names = {std::string(kSingleFile)};
  if (indexed) {
    ASSIGN_OR_RETURN(file_of, ReadIndex(fs, JoinPath(directory, kIndexFile)));
    names.clear();
    for (const auto& [tensor, file] : file_of) names.insert(file);
  }
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(fs, JoinPath(directory, name)));
    for (const SafetensorsEntry& entry : file.header().entries) {
      const auto listed = file_of.find(entry.name);
      if (indexed && (listed == file_of.end() || listed->second != name)) {
        return absl::DataLossError(absl::StrCat(file.path(), ": holds ", absl::CHexEscape(entry.name), ", which ",
                                                kIndexFile, " does not say"));
      }
      files.where_[entry.name] = {files.files_.size(), entry};
    }
    files.files_.push_back(std::move(file));
  }
  for (const auto& [tensor, file] : file_of) {
    if (files.Find(tensor) != nullptr) continue;
    return absl::DataLossError(
        absl::StrCat(JoinPath(directory, file), ": lacks ", absl::CHexEscape(tensor), ", which ", kIndexFile, " says"));
  }
  return files;
}

const SafetensorsEntry* HfFiles::Find(const std::string& name) const {
  const auto found = where_.find(name);
  return found == where_.end() ? nullptr : &found->second.second;
}

std::vector<std::string> HfFiles::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, where] : where_) names.push_back(name);
  return names;
}

absl::Status HfFiles::Read(const std::string& name, int64_t begin, int64_t size, char* out) const {
  const auto& [file, entry] = where_.at(name);
  return files_[file].ReadAt(entry.offset + begin, size, out);
}

}  // namespace shoestring
