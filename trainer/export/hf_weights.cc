// Everything is looked up and checked first, then read piece by piece.
#include "trainer/export/hf_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "trainer/export/fp8_blocks.h"

namespace shoestring {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 18;
constexpr size_t kMostShown = 50;
constexpr char kFp8[] = "F8_E4M3";

// The layer number in "model.layers.12.mlp..."; -1 for other names.
int LayerOf(absl::string_view name) {
  int layer = -1;
  if (!absl::ConsumePrefix(&name, "model.layers.")) return -1;
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) ? layer : -1;
}

std::string Describe(const std::string& dtype, const std::vector<int64_t>& shape) {
  return absl::StrCat(dtype, " [", absl::StrJoin(shape, ", "), "]");
}

// Blocks of another size, and other formats, would be read without an error and mean other weights.
absl::Status CheckQuantization(FileSystem& fs, const std::string& directory) {
  const std::string path = JoinPath(directory, "config.json");
  ASSIGN_OR_RETURN(const nlohmann::json config, ReadHfJson(fs, path));
  const nlohmann::json found = config.value("quantization_config", nlohmann::json());
  const auto is = [&](const char* field, const nlohmann::json& wanted) {
    return found.contains(field) && found.at(field) == wanted;
  };
  if (found.is_object() && is("quant_method", "fp8") && is("fmt", "e4m3") &&
      is("weight_block_size", nlohmann::json::array({kFp8Block, kFp8Block}))) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(path, ": quantization_config does not say fp8, e4m3 and weight_block_size [",
                                          kFp8Block, ", ", kFp8Block, "], but the weights have F8_E4M3"));
}

// Whoever quantises divides by the scale, so it is above 0 even where a block holds nothing but zeros.
absl::Status CheckScales(const std::string& tensor, const std::vector<float>& scales) {
  for (size_t i = 0; i < scales.size(); ++i) {
    if (std::isfinite(scales[i]) && scales[i] > 0) continue;
    return absl::DataLossError(absl::StrCat(HfScaleName(tensor), ": scale ", i, " is ", scales[i],
                                            ", not a number above 0; download the file again"));
  }
  return absl::OkStatus();
}

}  // namespace

HfWeights::HfWeights(std::string directory, const config::ModelConfig& model, const HfImport& options, HfFiles files)
    : directory_(std::move(directory)),
      model_(model),
      options_(options),
      files_(std::move(files)),
      table_(BuildParameterTable(model_)),
      tensors_(HfTensorsOf(model_, table_, {.mtp = options.mtp, .routing_biases = !IsDeepseekV2(model_)})) {
  for (const HfTensor& tensor : tensors_) {
    const SafetensorsEntry* const entry = files_.Find(tensor.name);
    tensors_read_ += entry != nullptr ? 1 : 0;
    weight_bytes_ += entry != nullptr ? entry->size_bytes : 0;
    if (!tensor.is_copy) parts_[table_[tensor.parameter].name].push_back(&tensor);
  }
  for (auto& [name, parts] : parts_) {
    std::sort(parts.begin(), parts.end(), [](const auto* a, const auto* b) { return a->first_row < b->first_row; });
  }
}

absl::StatusOr<std::unique_ptr<HfWeights>> HfWeights::Open(FileSystem& fs, const std::string& directory,
                                                           const config::ModelConfig& model, const HfImport& options) {
  ASSIGN_OR_RETURN(HfFiles files, HfFiles::Open(fs, directory));
  auto weights = std::unique_ptr<HfWeights>(new HfWeights(directory, model, options, std::move(files)));
  RETURN_IF_ERROR(weights->CheckTensors());
  if (weights->AnyFp8()) RETURN_IF_ERROR(CheckQuantization(fs, directory));
  RETURN_IF_ERROR(WithContext(weights->CheckCopies(), directory));
  return weights;
}

bool HfWeights::AnyFp8() const {
  return std::any_of(tensors_.begin(), tensors_.end(), [&](const HfTensor& tensor) {
    const SafetensorsEntry* const entry = files_.Find(tensor.name);
    return entry != nullptr && entry->dtype == kFp8;
  });
}

// Tensors that say nothing: tables of rotary frequencies, which old files carry; what is skipped on purpose.
bool HfWeights::IsIgnored(const std::string& name) const {
  if (absl::EndsWith(name, "rotary_emb.inv_freq")) return true;
  return !options_.mtp && LayerOf(name) >= model_.layers();
}

void HfWeights::FindMisfits(const HfTensor& tensor, std::vector<std::string>& problems) const {
  const SafetensorsEntry* const entry = files_.Find(tensor.name);
  if (entry == nullptr) {
    if (!tensor.is_copy) problems.push_back(absl::StrCat(tensor.name, " is missing"));
    return;
  }
  const bool may_be_fp8 = tensor.shape.size() == 2 && !tensor.keeps_f32;
  const bool fp8 = may_be_fp8 && entry->dtype == kFp8;
  if (entry->shape != tensor.shape || (entry->dtype != "F32" && entry->dtype != "BF16" && !fp8)) {
    problems.push_back(absl::StrCat(tensor.name, " is ", Describe(entry->dtype, entry->shape), ", not ",
                                    Describe(may_be_fp8 ? "F32, BF16 or F8_E4M3" : "F32 or BF16", tensor.shape)));
    return;
  }
  if (!fp8) return;
  const std::string name = HfScaleName(tensor.name);
  const std::vector<int64_t> shape = {Fp8Blocks(tensor.rows), Fp8Blocks(tensor.cols)};
  const SafetensorsEntry* const scales = files_.Find(name);
  if (scales == nullptr) {
    problems.push_back(absl::StrCat(name, " is missing, and ", tensor.name, " is ", kFp8));
  } else if (scales->dtype != "F32" || scales->shape != shape) {
    problems.push_back(
        absl::StrCat(name, " is ", Describe(scales->dtype, scales->shape), ", not ", Describe("F32", shape)));
  }
}

absl::Status HfWeights::CheckTensors() const {
  std::vector<std::string> problems;
  std::set<std::string> known;
  for (const HfTensor& tensor : tensors_) {
    FindMisfits(tensor, problems);
    known.insert(tensor.name);
    const SafetensorsEntry* const entry = files_.Find(tensor.name);
    if (entry != nullptr && entry->dtype == kFp8) known.insert(HfScaleName(tensor.name));
  }
  for (const std::string& name : files_.Names()) {
    if (known.contains(name) || IsIgnored(name)) continue;
    problems.push_back(absl::StrCat(absl::CHexEscape(name), " is not known to this model"));
  }
  if (problems.empty()) return absl::OkStatus();
  const size_t hidden = problems.size() > kMostShown ? problems.size() - kMostShown : 0;
  problems.resize(problems.size() - hidden);
  if (hidden > 0) problems.push_back(absl::StrCat("and ", hidden, " more"));
  return absl::FailedPreconditionError(
      absl::StrCat(directory_, ": the weights do not fit the model\n  ", absl::StrJoin(problems, "\n  ")));
}

absl::Status HfWeights::CheckCopies() {
  std::vector<float> copy, original;
  for (const HfTensor& tensor : tensors_) {
    if (!tensor.is_copy || files_.Find(tensor.name) == nullptr) continue;
    const HfTensor& shared = *parts_.at(table_[tensor.parameter].name).front();  // one part: the whole matrix
    for (int64_t done = 0; done < tensor.elements(); done += kPieceElements) {
      const int64_t count = std::min(kPieceElements, tensor.elements() - done);
      copy.resize(static_cast<size_t>(count));
      original.resize(static_cast<size_t>(count));
      RETURN_IF_ERROR(ReadTensor(tensor, done, count, copy.data()));
      RETURN_IF_ERROR(ReadTensor(shared, done, count, original.data()));
      if (std::memcmp(copy.data(), original.data(), copy.size() * sizeof(float)) == 0) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          tensor.name,
          " differs from the main model's; this model shares embedding and head (--skip-mtp leaves it out)"));
    }
  }
  return absl::OkStatus();
}

absl::Status HfWeights::ReadFp8(const HfTensor& tensor, int64_t first, int64_t count, float* out) {
  const int64_t blocks = Fp8Blocks(tensor.cols);
  if (scales_of_ != tensor.name) {
    scales_.resize(static_cast<size_t>(Fp8Blocks(tensor.rows) * blocks));
    scales_of_.clear();  // if the reading fails, of none
    RETURN_IF_ERROR(files_.Read(HfScaleName(tensor.name), 0, static_cast<int64_t>(scales_.size() * sizeof(float)),
                                reinterpret_cast<char*>(scales_.data())));
    RETURN_IF_ERROR(CheckScales(tensor.name, scales_));
    scales_of_ = tensor.name;
  }
  bytes_.resize(static_cast<size_t>(count));
  RETURN_IF_ERROR(files_.Read(tensor.name, first, count, bytes_.data()));
  for (int64_t done = 0; done < count;) {
    const int64_t row = (first + done) / tensor.cols, col = (first + done) % tensor.cols;
    const int64_t piece = std::min(count - done, tensor.cols - col);
    DequantizeInRow(reinterpret_cast<const uint8_t*>(bytes_.data()) + done, col, piece,
                    scales_.data() + row / kFp8Block * blocks, out + done);
    done += piece;
  }
  return absl::OkStatus();
}

absl::Status HfWeights::ReadTensor(const HfTensor& tensor, int64_t first, int64_t count, float* out) {
  const std::string& dtype = files_.Find(tensor.name)->dtype;
  if (dtype == kFp8) {
    RETURN_IF_ERROR(ReadFp8(tensor, first, count, out));
  } else {
    const DType from = *DTypeOfSafetensorsName(dtype);
    bytes_.resize(static_cast<size_t>(count * SizeOf(from)));
    RETURN_IF_ERROR(files_.Read(tensor.name, first * SizeOf(from), count * SizeOf(from), bytes_.data()));
    ConvertElements(bytes_.data(), from, reinterpret_cast<char*>(out), DType::kF32, count);
  }
  if (std::all_of(out, out + count, [](float value) { return std::isfinite(value); })) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(tensor.name, " holds a number that is not finite; training cannot begin from it"));
}

absl::StatusOr<DType> HfWeights::DTypeOfParameter(const Parameter& parameter) {
  if (!parameter.is_mtp || options_.mtp) return DType::kF32;
  return absl::FailedPreconditionError(absl::StrCat(directory_, ": ", parameter.name, " is left out (--skip-mtp)"));
}

absl::Status HfWeights::Read(const Parameter& parameter, int64_t first, int64_t count, char* out) {
  const auto found = parts_.find(parameter.name);
  if (found == parts_.end()) {  // routing biases, which deepseek_v2 has not
    CHECK(!parameter.trained);
    std::memset(out, 0, static_cast<size_t>(count) * sizeof(float));
    return absl::OkStatus();
  }
  auto* values = reinterpret_cast<float*>(out);
  for (const HfTensor* tensor : found->second) {
    const int64_t begin = tensor->first_row * tensor->cols, end = begin + tensor->elements();
    const int64_t from = std::max(first, begin), to = std::min(first + count, end);
    if (from >= to) continue;
    RETURN_IF_ERROR(WithContext(ReadTensor(*tensor, from - begin, to - from, values + (from - first)), directory_));
  }
  return absl::OkStatus();
}

}  // namespace shoestring
