// Reads the weights of a Hugging Face directory into the parameters of a model.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "configs/schema/model.pb.h"
#include "kernels/tensor.h"

namespace shoestring {

struct HfImport {
  bool mtp = true;  // false: tensors of layers after the last are ignored, and the MTP modules' weights left alone
};

struct HfImported {
  int64_t tensors = 0;  // read
  int64_t weight_bytes = 0;
};

// The model that a directory's config.json describes.
absl::StatusOr<config::ModelConfig> ReadHfModel(FileSystem& fs, const std::string& directory);

// Fills `weights`: for each parameter of BuildParameterTable(model) contiguous host memory of as many elements, F32 or
// BF16. The files (model.safetensors, or those of its index) are read piece by piece, all names and shapes checked
// before. Routing biases of a deepseek_v2 become 0.
// Errors: FAILED_PRECONDITION naming every tensor that is missing, unknown, or of another shape or dtype than F32 and
// BF16; DATA_LOSS for files that are not whole; INVALID_ARGUMENT when an MTP module's copy of embedding or head differs
// from the original; else the file system's. After an error the weights' content is undefined.
absl::StatusOr<HfImported> ImportHf(FileSystem& fs, const std::string& directory, const config::ModelConfig& model,
                                    const std::map<std::string, View>& weights, const HfImport& options);

}  // namespace shoestring
