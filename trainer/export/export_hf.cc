// Writing a Hugging Face directory: weights piece by piece, then the small files that make it loadable.
#include "trainer/export/export_hf.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "configs/hf_config.h"
#include "configs/load.h"
#include "configs/resolve.h"
#include "data/tokenizer.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/directory.h"
#include "trainer/export/fp8_blocks.h"
#include "trainer/export/hf_file_writer.h"
#include "trainer/export/hf_tensors.h"

namespace shoestring {
namespace {

// One export: what is written where, and from what.
class Exporter {
 public:
  Exporter(FileSystem& fs, std::string directory, const config::ModelConfig& model, WeightSource& weights,
           const HfExport& options)
      : fs_(fs),
        directory_(std::move(directory)),
        model_(model),
        table_(BuildParameterTable(model)),
        weights_(weights),
        options_(options) {}

  absl::Status Run() {
    RETURN_IF_ERROR(fs_.CreateDirectories(directory_));
    RETURN_IF_ERROR(WriteConfigs());  // first: it refuses what the format cannot say
    if (IsDeepseekV2(model_)) RETURN_IF_ERROR(CheckNoRoutingBiases());
    RETURN_IF_ERROR(WriteWeights());
    if (!options_.tokenizer_json.empty()) RETURN_IF_ERROR(WriteTokenizer());
    return fs_.SyncDirectory(directory_);
  }
  const HfExported& exported() const { return exported_; }

 private:
  std::string File(absl::string_view name) const { return JoinPath(directory_, name); }

  absl::Status WriteConfigs() {
    config::HfExportOptions options;
    options.max_position_embeddings = options_.max_position_embeddings;
    options.torch_dtype = options_.dtype == DType::kF32 ? "float32" : "bfloat16";
    options.mtp = options_.mtp;
    ASSIGN_OR_RETURN(std::string text, config::ExportHfConfig(model_, options));
    if (options_.dtype == DType::kE4M3) text = WithQuantization(text);
    RETURN_IF_ERROR(WriteSynced(fs_, File("config.json"), text));
    const nlohmann::ordered_json generation = {
        {"_from_model_config", true}, {"bos_token_id", model_.bos_id()}, {"eos_token_id", model_.eos_id()}};
    return WriteSynced(fs_, File("generation_config.json"), generation.dump(2) + "\n");
  }

  // As DeepSeek-V3's release says it, and V3.1's of power-of-two scales.
  std::string WithQuantization(const std::string& config_json) const {
    auto json = nlohmann::ordered_json::parse(config_json);
    nlohmann::ordered_json block = {{"activation_scheme", "dynamic"}, {"fmt", "e4m3"}, {"quant_method", "fp8"}};
    if (options_.power_of_two_scales) block["scale_fmt"] = "ue8m0";
    block["weight_block_size"] = {kFp8Block, kFp8Block};
    json["quantization_config"] = block;
    return json.dump(2) + "\n";
  }

  absl::Status CheckNoRoutingBiases() {
    for (const Parameter& p : table_) {
      if (p.trained) continue;
      ASSIGN_OR_RETURN(const DType dtype, weights_.DTypeOfParameter(p));
      std::string bytes(static_cast<size_t>(p.elements() * SizeOf(dtype)), '\0');
      RETURN_IF_ERROR(weights_.Read(p, 0, p.elements(), bytes.data()));
      std::vector<float> values(static_cast<size_t>(p.elements()));
      ConvertElements(bytes.data(), dtype, reinterpret_cast<char*>(values.data()), DType::kF32, p.elements());
      if (std::all_of(values.begin(), values.end(), [](float value) { return value == 0; })) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          p.name, " is not 0, but a softmax gate is exported as deepseek_v2, which has no routing biases"));
    }
    return absl::OkStatus();
  }

  // What goes into which file: in order, a new file where the next tensor does not fit.
  std::vector<std::vector<HfOutput>> Distribute(const std::vector<HfTensor>& tensors) {
    std::vector<std::vector<HfOutput>> files(1);
    int64_t in_file = 0;
    for (const HfTensor& tensor : tensors) {
      const std::vector<HfOutput> outputs = HfOutputsOf(tensor, options_.dtype);
      int64_t bytes = 0;
      for (const HfOutput& output : outputs) bytes += output.bytes();
      if (in_file > 0 && in_file + bytes > options_.max_shard_bytes) {
        files.emplace_back();
        in_file = 0;
      }
      files.back().insert(files.back().end(), outputs.begin(), outputs.end());
      in_file += bytes;
      exported_.weight_bytes += bytes;
    }
    exported_.tensors = static_cast<int64_t>(tensors.size());
    exported_.files = static_cast<int>(files.size());
    return files;
  }

  absl::Status WriteWeights() {
    const std::vector<HfTensor> tensors =
        HfTensorsOf(model_, table_, {.mtp = options_.mtp, .routing_biases = !IsDeepseekV2(model_)});
    const std::vector<std::vector<HfOutput>> files = Distribute(tensors);
    HfFileWriter writer(fs_, table_, weights_, options_.power_of_two_scales);
    nlohmann::json weight_map = nlohmann::json::object();
    for (size_t i = 0; i < files.size(); ++i) {
      const std::string name = files.size() == 1
                                   ? "model.safetensors"
                                   : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, files.size());
      RETURN_IF_ERROR(writer.Write(File(name), files[i]));
      for (const HfOutput& output : files[i]) weight_map[output.name] = name;
    }
    if (files.size() == 1) return absl::OkStatus();
    nlohmann::ordered_json index;
    index["metadata"] = {{"total_size", exported_.weight_bytes}};
    index["weight_map"] = weight_map;
    return WriteSynced(fs_, File("model.safetensors.index.json"), index.dump(2) + "\n");
  }

  absl::Status WriteTokenizer() {
    ASSIGN_OR_RETURN(const std::string json, ReadFile(fs_, options_.tokenizer_json, kMaxTokenizerJsonBytes));
    RETURN_IF_ERROR(WriteSynced(fs_, File("tokenizer.json"), json));
    const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Parse(json);
    if (!tokenizer.ok()) return WithContext(tokenizer.status(), options_.tokenizer_json);
    exported_.tokenizer = true;
    return WriteSynced(fs_, File("tokenizer_config.json"), TokenizerConfig(*tokenizer));
  }

  static std::string TokenizerConfig(const Tokenizer& tokenizer) {
    nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                     {"clean_up_tokenization_spaces", false}};
    const SpecialIds& ids = tokenizer.special_ids();
    const std::pair<const char*, int32_t> tokens[] = {
        {"bos_token", ids.bos}, {"eos_token", ids.eos}, {"pad_token", ids.pad}};
    for (const auto& [name, id] : tokens) {
      if (id >= 0) config[name] = std::string(tokenizer.TokenBytes(id));
    }
    return config.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }

  FileSystem& fs_;
  const std::string directory_;
  const config::ModelConfig& model_;
  const std::vector<Parameter> table_;
  WeightSource& weights_;
  const HfExport& options_;
  HfExported exported_;
};

// Phases that have taken a step before the checkpoint.
int PhasesBegun(const config::RunConfig& run, const checkpoint::SnapshotHeader& header) {
  const int next = std::min<int>(header.phase(), run.train().phase_size());
  return next < run.train().phase_size() && header.phase_step() > 0 ? next + 1 : next;
}

// The path of the tokenizer to put beside the weights: `wanted`, which must be the run's own, or the run's if it is
// still where its config says; else empty.
absl::StatusOr<std::string> TokenizerOf(FileSystem& fs, const config::RunConfig& run,
                                        const checkpoint::SnapshotHeader& header, const std::string& wanted) {
  const std::string& path = wanted.empty() ? run.data().tokenizer() : wanted;
  if (wanted.empty() && (path.empty() || header.tokenizer_fingerprint().empty() || !Exists(fs, path))) {
    return std::string();
  }
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(fs, path));
  const std::string& fingerprint = header.tokenizer_fingerprint();
  if (fingerprint.empty() || tokenizer.Fingerprint() == fingerprint) return path;
  if (wanted.empty()) return std::string();
  return absl::FailedPreconditionError(absl::StrCat(path, ": is not the tokenizer that the model was trained with ",
                                                    "(fingerprint ", tokenizer.Fingerprint(), ", wanted ", fingerprint,
                                                    "); name that one"));
}

}  // namespace

absl::StatusOr<HfExported> ExportHf(FileSystem& fs, const std::string& place, const config::ModelConfig& model,
                                    WeightSource& weights, const HfExport& options) {
  const std::string directory(WithoutTrailingSlashes(place));  // its name begins that of the temporary one
  CHECK(options.dtype == DType::kF32 || options.dtype == DType::kBF16 || options.dtype == DType::kE4M3);
  if (Exists(fs, directory)) {
    return absl::AlreadyExistsError(absl::StrCat(directory, ": exists already; name a new directory"));
  }
  RETURN_IF_ERROR(CreateDirectoriesDurably(fs, DirName(directory)));
  ASSIGN_OR_RETURN(const std::string temporary, FreeName(fs, directory, "tmp"));
  Exporter exporter(fs, temporary, model, weights, options);
  absl::Status status = exporter.Run();
  if (status.ok()) status = fs.Rename(temporary, directory);
  if (!status.ok()) {
    RemoveRecursively(fs, temporary).IgnoreError();  // the first failure is the one to tell
    return status;
  }
  RETURN_IF_ERROR(fs.SyncDirectory(DirName(directory)));
  return exporter.exported();
}

absl::StatusOr<HfExported> ExportCheckpointHf(FileSystem& fs, const std::string& checkpoint_path, StateKind kind,
                                              const std::string& directory, const HfExport& options) {
  ASSIGN_OR_RETURN(const OpenedCheckpoint checkpoint, OpenCheckpoint(fs, checkpoint_path));
  ASSIGN_OR_RETURN(const config::LoadedConfig loaded,
                   config::ParseConfig(checkpoint.header().config_textproto(), checkpoint_path));
  ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointWeights> weights, CheckpointWeights::Open(fs, checkpoint, kind));
  HfExport filled = options;
  const config::RunConfig& run = loaded.config;
  ASSIGN_OR_RETURN(filled.tokenizer_json, TokenizerOf(fs, run, checkpoint.header(), options.tokenizer_json));
  filled.power_of_two_scales |= run.precision().fp8().power_of_two_weight();
  const config::TrainedModel trained = config::ModelAfter(run, PhasesBegun(run, checkpoint.header()));
  if (filled.max_position_embeddings == 0) filled.max_position_embeddings = trained.context_length;
  return ExportHf(fs, directory, trained.model, *weights, filled);
}

}  // namespace shoestring
