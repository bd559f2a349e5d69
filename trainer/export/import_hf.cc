// Reading a Hugging Face directory: everything is looked up and checked first, then read tensor by tensor.
#include "trainer/export/import_hf.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "configs/hf_config.h"
#include "data/tokenizer_strict_json.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/export/hf_tensors.h"
#include "trainer/params.h"

namespace shoestring {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 20;
constexpr int64_t kMaxJsonBytes = int64_t{64} << 20;
constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr absl::string_view kIndexFile = "model.safetensors.index.json";

// The weight files of a directory, opened, and where each tensor is.
class HfFiles {
 public:
  static absl::StatusOr<HfFiles> Open(FileSystem& fs, const std::string& directory) {
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
      if (files.where_.contains(tensor)) continue;
      return absl::DataLossError(absl::StrCat(JoinPath(directory, file), ": lacks ", absl::CHexEscape(tensor),
                                              ", which ", kIndexFile, " says"));
    }
    return files;
  }

  const std::map<std::string, std::pair<size_t, SafetensorsEntry>>& where() const { return where_; }
  absl::Status Read(const std::string& name, int64_t begin, int64_t size, char* out) const {
    const auto& [file, entry] = where_.at(name);
    return files_[file].ReadAt(entry.offset + begin, size, out);
  }

 private:
  static absl::StatusOr<std::map<std::string, std::string>> ReadIndex(FileSystem& fs, const std::string& path) {
    ASSIGN_OR_RETURN(const FileInfo info, fs.Stat(path));
    if (info.size_bytes > kMaxJsonBytes) return absl::DataLossError(absl::StrCat(path, ": is too large"));
    ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path));
    const absl::StatusOr<nlohmann::json> json = ParseStrictJson(text);
    if (!json.ok()) return absl::DataLossError(absl::StrCat(path, ": ", json.status().message()));
    const bool has_map = json->is_object() && json->contains("weight_map") && json->at("weight_map").is_object();
    if (!has_map) return absl::DataLossError(absl::StrCat(path, ": has no object weight_map"));
    std::map<std::string, std::string> file_of;
    for (const auto& [tensor, file] : json->at("weight_map").items()) {
      if (!file.is_string() || !IsPlainName(file.get<std::string>())) {
        return absl::DataLossError(absl::StrCat(path, ": weight_map.", absl::CHexEscape(tensor), " is no file name"));
      }
      file_of[tensor] = file.get<std::string>();
    }
    return file_of;
  }

  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::pair<size_t, SafetensorsEntry>> where_;
};

// The layer number in "model.layers.12.mlp..."; -1 for other names.
int LayerOf(absl::string_view name) {
  int layer = -1;
  if (!absl::ConsumePrefix(&name, "model.layers.")) return -1;
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) ? layer : -1;
}

// Tensors that say nothing: tables of rotary frequencies, which old files carry; what --skip-mtp skips.
bool IsIgnored(const std::string& name, const config::ModelConfig& model, const HfImport& options) {
  if (absl::EndsWith(name, "rotary_emb.inv_freq")) return true;
  return !options.mtp && LayerOf(name) >= model.layers();
}

std::string Describe(const std::string& dtype, const std::vector<int64_t>& shape) {
  return absl::StrCat(dtype, " [", absl::StrJoin(shape, ", "), "]");
}

absl::Status CheckTensors(const HfFiles& files, const std::vector<HfTensor>& tensors, const config::ModelConfig& model,
                          const HfImport& options) {
  std::vector<std::string> problems;
  std::set<absl::string_view> known;
  for (const HfTensor& tensor : tensors) {
    known.insert(tensor.name);
    const auto found = files.where().find(tensor.name);
    if (found == files.where().end()) {
      if (!tensor.is_copy) problems.push_back(absl::StrCat(tensor.name, " is missing"));
      continue;
    }
    const SafetensorsEntry& entry = found->second.second;
    if (entry.shape != tensor.shape || (entry.dtype != "F32" && entry.dtype != "BF16")) {
      problems.push_back(absl::StrCat(tensor.name, " is ", Describe(entry.dtype, entry.shape), ", not ",
                                      Describe("F32 or BF16", tensor.shape)));
    }
  }
  for (const auto& [name, where] : files.where()) {
    if (!known.contains(name) && !IsIgnored(name, model, options)) {
      problems.push_back(absl::StrCat(absl::CHexEscape(name), " is not known to this model"));
    }
  }
  if (problems.empty()) return absl::OkStatus();
  constexpr size_t kMostShown = 50;
  const size_t hidden = problems.size() > kMostShown ? problems.size() - kMostShown : 0;
  problems.resize(problems.size() - hidden);
  if (hidden > 0) problems.push_back(absl::StrCat("and ", hidden, " more"));
  return absl::FailedPreconditionError(
      absl::StrCat("the weights do not fit the model: ", absl::StrJoin(problems, "; ")));
}

// Reads one tensor into its rows of the parameter; of a copy, compares with what the original put there.
absl::Status ReadTensor(const HfFiles& files, const HfTensor& tensor, const View& parameter) {
  const SafetensorsEntry& entry = files.where().at(tensor.name).second;
  const DType from = *DTypeOfSafetensorsName(entry.dtype), to = parameter.dtype;
  char* const target = reinterpret_cast<char*>(parameter.data) + tensor.first_row * tensor.cols * SizeOf(to);
  std::string read, converted;
  for (int64_t done = 0; done < tensor.elements(); done += kPieceElements) {
    const int64_t count = std::min(kPieceElements, tensor.elements() - done);
    read.resize(static_cast<size_t>(count * SizeOf(from)));
    RETURN_IF_ERROR(files.Read(tensor.name, done * SizeOf(from), count * SizeOf(from), read.data()));
    char* const place = target + done * SizeOf(to);
    if (!tensor.is_copy) {
      ConvertElements(read.data(), from, place, to, count);
      continue;
    }
    converted.resize(static_cast<size_t>(count * SizeOf(to)));
    ConvertElements(read.data(), from, converted.data(), to, count);
    if (std::memcmp(converted.data(), place, converted.size()) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          tensor.name,
          " differs from the main model's; this model shares embedding and head (--skip-mtp leaves it out)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<config::ModelConfig> ReadHfModel(FileSystem& fs, const std::string& directory) {
  const std::string path = JoinPath(directory, "config.json");
  ASSIGN_OR_RETURN(const FileInfo info, fs.Stat(path));
  if (info.size_bytes > kMaxJsonBytes) return absl::DataLossError(absl::StrCat(path, ": is too large"));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path));
  return config::ImportHfConfig(text);
}

absl::StatusOr<HfImported> ImportHf(FileSystem& fs, const std::string& directory, const config::ModelConfig& model,
                                    const std::map<std::string, View>& weights, const HfImport& options) {
  const std::vector<Parameter> table = BuildParameterTable(model);
  const bool has_biases = !IsDeepseekV2(model);
  const std::vector<HfTensor> tensors = HfTensorsOf(model, table, {.mtp = options.mtp, .routing_biases = has_biases});
  ASSIGN_OR_RETURN(const HfFiles files, HfFiles::Open(fs, directory));
  if (const absl::Status fit = CheckTensors(files, tensors, model, options); !fit.ok()) {
    return WithContext(fit, directory);
  }
  HfImported imported;
  for (const HfTensor& tensor : tensors) {  // originals come before their copies
    if (!files.where().contains(tensor.name)) continue;
    const Parameter& p = table[tensor.parameter];
    const View& view = weights.at(p.name);
    CHECK(view.contiguous());
    CHECK_EQ(view.elements(), p.elements());
    RETURN_IF_ERROR(WithContext(ReadTensor(files, tensor, view), directory));
    ++imported.tensors;
    imported.weight_bytes += files.where().at(tensor.name).second.size_bytes;
  }
  for (const Parameter& p : table) {
    if (p.trained || has_biases) continue;
    const View& bias = weights.at(p.name);
    std::memset(bias.data, 0, static_cast<size_t>(bias.bytes()));
  }
  return imported;
}

}  // namespace shoestring
