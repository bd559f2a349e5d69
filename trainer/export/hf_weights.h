// The weights of a Hugging Face directory as parameters of a model: F32, BF16 or FP8 in the files, F32 to the reader.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "configs/schema/model.pb.h"
#include "trainer/export/hf_files.h"
#include "trainer/export/hf_tensors.h"
#include "trainer/export/weight_source.h"
#include "trainer/params.h"

namespace shoestring {

struct HfImport {
  bool mtp = true;  // false: tensors of layers after the last are ignored, and MTP modules' weights are not there
};

// A matrix in FP8 (F8_E4M3) is value times scale, one F32 of X.weight_scale_inv for every 128 x 128 block, the product
// rounded to FP32. Not thread-safe. Holds headers and the scales of one tensor; weights are read piece by piece.
class HfWeights final : public WeightSource {
 public:
  // Opens the files and checks all names, shapes and dtypes, and the copies of embedding and head in MTP modules.
  // Errors: FAILED_PRECONDITION, the directory and then a line a problem, for every tensor that is missing, unknown, or
  // of another shape or dtype; INVALID_ARGUMENT when a copy differs from the original or holds a number that is not
  // finite; DATA_LOSS for files that are not whole and FP8 blocks of another size; else the file system's.
  static absl::StatusOr<std::unique_ptr<HfWeights>> Open(FileSystem& fs, const std::string& directory,
                                                         const config::ModelConfig& model, const HfImport& options);

  // kF32 always. FAILED_PRECONDITION for weights of MTP modules that the options leave out.
  absl::StatusOr<DType> DTypeOfParameter(const Parameter& parameter) override;
  // INVALID_ARGUMENT naming the tensor if it holds a number that is not finite.
  absl::Status Read(const Parameter& parameter, int64_t first, int64_t count, char* out) override;

  // Of the table that the model's parameters are in.
  const std::vector<Parameter>& table() const { return table_; }
  int64_t tensors() const { return tensors_read_; }       // in the files, scales and ignored ones not counted
  int64_t weight_bytes() const { return weight_bytes_; }  // of those

 private:
  HfWeights(std::string directory, const config::ModelConfig& model, const HfImport& options, HfFiles files);
  absl::Status CheckTensors() const;
  void FindMisfits(const HfTensor& tensor, std::vector<std::string>& problems) const;
  bool IsIgnored(const std::string& name) const;
  bool AnyFp8() const;
  absl::Status CheckCopies();
  // Elements of a released tensor.
  absl::Status ReadTensor(const HfTensor& tensor, int64_t first, int64_t count, float* out);
  absl::Status ReadFp8(const HfTensor& tensor, int64_t first, int64_t count, float* out);

  const std::string directory_;
  const config::ModelConfig model_;
  const HfImport options_;
  const HfFiles files_;
  const std::vector<Parameter> table_;
  const std::vector<HfTensor> tensors_;
  std::map<std::string, std::vector<const HfTensor*>> parts_;  // of each parameter, in the order of their rows
  std::string scales_of_;                                      // the FP8 tensor whose scales are in memory
  std::vector<float> scales_;
  std::string bytes_;  // as they are in a file
  int64_t tensors_read_ = 0;
  int64_t weight_bytes_ = 0;
};

}  // namespace shoestring
