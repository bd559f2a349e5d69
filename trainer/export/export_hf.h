// Writes a model as a Hugging Face directory that other programs load.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "configs/schema/model.pb.h"
#include "kernels/tensor.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/export/weight_source.h"

namespace shoestring {

struct HfExport {
  // kF32; kBF16; or kE4M3: linear layers in FP8 with scales (docs/formats/huggingface.md), the rest in BF16. Routing
  // biases are F32 always.
  DType dtype = DType::kBF16;
  bool power_of_two_scales = false;         // of FP8
  bool mtp = true;                          // false: --skip-mtp
  int64_t max_shard_bytes = 5'000'000'000;  // of a weight file; one larger tensor still goes into one file
  int64_t max_position_embeddings = 0;  // tokens; 0: what YaRN reaches, else the longest trained sequence, else 4096
  std::string tokenizer_json{};         // path of the file to copy; empty: none, of a checkpoint its run's if there
};

struct HfExported {
  int64_t tensors = 0;  // scales not counted
  int64_t weight_bytes = 0;
  int files = 0;
  bool tokenizer = false;  // whether tokenizer files were written
};

// Writes the directory `place`, which must not exist: all of it is durable before it has its name. The source is read
// piece by piece. Errors: ALREADY_EXISTS; FAILED_PRECONDITION when the format cannot say the model
// (configs/hf_config.h; a deepseek_v2 with routing biases that are not 0) or a weight is missing; else those of reading
// and writing.
absl::StatusOr<HfExported> ExportHf(FileSystem& fs, const std::string& place, const config::ModelConfig& model,
                                    WeightSource& weights, const HfExport& options);

// The same from the checkpoint at `checkpoint_path`, whose config says the model, context extension as in the phase
// that trained it, sequences as in the phases up to there (before the first step, as in the first phase); power-of-two
// scales where its FP8 recipe has them. `kind` is kWeights or kEma. Moreover
// FAILED_PRECONDITION for a tokenizer that the run was not trained with.
absl::StatusOr<HfExported> ExportCheckpointHf(FileSystem& fs, const std::string& checkpoint_path, StateKind kind,
                                              const std::string& directory, const HfExport& options);

}  // namespace shoestring
