// Writes one weight file of a Hugging Face directory, piece by piece, in F32, BF16 or FP8.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "kernels/tensor.h"
#include "trainer/export/hf_tensors.h"
#include "trainer/export/weight_source.h"
#include "trainer/params.h"

namespace shoestring {

// A tensor as it will be in a file: the values of a released tensor, or their scales.
struct HfOutput {
  const HfTensor* tensor = nullptr;
  std::string name;
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;
  bool is_scale = false;

  int64_t bytes() const;
};

// What a released tensor becomes in a directory of this dtype (kF32, kBF16 or kE4M3): itself, or in FP8 its scales and
// values, which belong in one file.
std::vector<HfOutput> HfOutputsOf(const HfTensor& tensor, DType directory_dtype);

class HfFileWriter {
 public:
  // All outlive the writer. `power_of_two_scales`: of FP8.
  HfFileWriter(FileSystem& fs, const std::vector<Parameter>& table, WeightSource& weights, bool power_of_two_scales)
      : fs_(fs), table_(table), weights_(weights), power_of_two_scales_(power_of_two_scales) {}

  // Durable when OK. FP8 weights are read twice, for the scales and for the values, and must be the same each time.
  // Errors: FAILED_PRECONDITION for a number in an FP8 matrix that is not finite; those of the source and the disk.
  absl::Status Write(const std::string& path, const std::vector<HfOutput>& outputs);

 private:
  absl::Status WriteConverted(const HfTensor& tensor, DType to, WritableFile& file);
  absl::Status WriteScales(const HfTensor& tensor, WritableFile& file);
  absl::Status WriteFp8(const HfTensor& tensor, WritableFile& file);
  // `values`: of the BF16 copy of rows [row, row + rows) of the tensor, whose band is band number `band`.
  absl::Status ForEachBand(const HfTensor& tensor,
                           absl::FunctionRef<absl::Status(int64_t band, const float* values, int64_t rows)> use);

  FileSystem& fs_;
  const std::vector<Parameter>& table_;
  WeightSource& weights_;
  const bool power_of_two_scales_;
  std::map<const HfTensor*, std::vector<float>> scales_;  // of the FP8 tensors of the file being written
  std::string read_, converted_;                          // one piece of a tensor
};

}  // namespace shoestring
