// Reads a Hugging Face directory: what model it is, and its weights into memory or into the first checkpoint of a run.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "configs/problem.h"
#include "configs/schema/model.pb.h"
#include "configs/schema/run.pb.h"
#include "kernels/tensor.h"
#include "trainer/checkpoint/manifest.pb.h"
#include "trainer/checkpoint/save.h"
#include "trainer/export/hf_weights.h"

namespace shoestring {

// The model that a directory's config.json describes. Errors: those of LoadHfConfig, each line with the path.
absl::StatusOr<config::ModelConfig> ReadHfModel(FileSystem& fs, const std::string& directory);

// Every field of `config`'s model that means another function, or other tokens, than the directory's: places by
// `locations`, what both say, and how to mend it. The initialiser, and what has no effect, may differ. With
// `mtp` false the directory's MTP modules do not count, but the config must have none.
absl::StatusOr<std::vector<config::Problem>> FindHfMismatches(FileSystem& fs, const std::string& directory,
                                                              const config::ModelConfig& model,
                                                              const config::Locations& locations, bool mtp);

struct HfImported {
  int64_t tensors = 0;  // read, scales not counted
  int64_t weight_bytes = 0;
};

// Fills `weights`: for each parameter of BuildParameterTable(model) contiguous host memory of as many elements, F32 or
// BF16. Without MTP their modules' weights are left alone. Routing biases of a deepseek_v2 become 0. Errors: those of
// HfWeights::Open and Read; after one the weights' content is undefined.
absl::StatusOr<HfImported> ImportHf(FileSystem& fs, const std::string& directory, const config::ModelConfig& model,
                                    const std::map<std::string, View>& weights, const HfImport& options);

struct HfCheckpoint {
  SavedCheckpoint saved;
  HfImported imported;
};

// Saves the state of `config` before its first step in `checkpoints`, with the directory's weights in it: moments 0,
// averages equal to the weights. `header` says everything but the position. The weights are never in memory as a whole.
// Errors: those of HfWeights and SaveCheckpoint; FAILED_PRECONDITION when the config has MTP modules that the options
// leave out.
absl::StatusOr<HfCheckpoint> ImportHfCheckpoint(FileSystem& fs, const std::string& directory,
                                                const config::RunConfig& config, checkpoint::SnapshotHeader header,
                                                const std::string& checkpoints, const HfImport& options);

}  // namespace shoestring
