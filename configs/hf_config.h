// Model shapes from and to Hugging Face config.json (deepseek_v3 and deepseek_v2).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "configs/schema/model.pb.h"

namespace shoestring::config {

// Reads the text of a config.json. Fields that only inference reads are ignored; a field that would change the function
// that is computed and that this program does not have (another architecture, rope type, activation, tied embeddings,
// biases, grouped keys, another layer frequency) is refused, and so are YaRN's mscale, mscale_all_dim and
// attention_factor where the released code and transformers take different temperatures from them. Absent groups,
// shared experts, dense layers, query latent and tokens are those of transformers' class of that model_type; absent
// MTP modules are none. deepseek_v2 gives a softmax gate and MAX group scores.
// Errors: INVALID_ARGUMENT, one line a problem: "<name>: field: problem; hint", with the name of the file; DATA_LOSS
// for what is no strict JSON (base/strict_json.h) or no object.
absl::StatusOr<ModelConfig> ImportHfConfig(absl::string_view json, const std::string& name = "config.json");

inline constexpr int64_t kMaxHfJsonBytes = int64_t{64} << 20;

// ImportHfConfig of the file at `path`. Also DATA_LOSS for more than kMaxHfJsonBytes; else the file system's errors.
absl::StatusOr<ModelConfig> LoadHfConfig(FileSystem& fs, const std::string& path);

struct HfExportOptions {
  int64_t max_position_embeddings = 0;   // tokens; 0: what model.yarn reaches, else 4096
  std::string torch_dtype = "bfloat16";  // of the exported weights
  bool mtp = true;                       // false: the exported weights leave the MTP modules out
};

// Writes config.json: deepseek_v3 for a sigmoid gate, deepseek_v2 for a softmax gate.
// Errors: FAILED_PRECONDITION when neither architecture can say the model (no experts, a sigmoid gate with MAX group
// scores or one expert a group, a softmax gate with TOP2_SUM scores that matter, with renormalised weights, or with
// MTP).
absl::StatusOr<std::string> ExportHfConfig(const ModelConfig& model, const HfExportOptions& options);

}  // namespace shoestring::config
