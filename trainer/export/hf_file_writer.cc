// Scales come before values in a file, so FP8 tensors are gone through twice.
#include "trainer/export/hf_file_writer.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/export/fp8_blocks.h"

namespace shoestring {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 18;

}  // namespace

int64_t HfOutput::bytes() const {
  int64_t bytes = SizeOf(dtype);
  for (const int64_t dimension : shape) bytes *= dimension;
  return bytes;
}

std::vector<HfOutput> HfOutputsOf(const HfTensor& tensor, DType directory_dtype) {
  if (tensor.keeps_f32) return {{&tensor, tensor.name, DType::kF32, tensor.shape}};
  if (directory_dtype != DType::kE4M3) return {{&tensor, tensor.name, directory_dtype, tensor.shape}};
  if (!tensor.is_linear) return {{&tensor, tensor.name, DType::kBF16, tensor.shape}};
  const std::vector<int64_t> blocks = {Fp8Blocks(tensor.rows), Fp8Blocks(tensor.cols)};
  return {{&tensor, HfScaleName(tensor.name), DType::kF32, blocks, /*is_scale=*/true},
          {&tensor, tensor.name, DType::kE4M3, tensor.shape}};
}

absl::Status HfFileWriter::Write(const std::string& path, const std::vector<HfOutput>& outputs) {
  std::vector<SafetensorsPlanEntry> entries;
  for (const HfOutput& output : outputs) entries.push_back({output.name, output.dtype, output.shape});
  const SafetensorsPlan plan = PlanSafetensors(entries, {{"format", "pt"}});
  ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, fs_.Create(path));
  RETURN_IF_ERROR(file->Append(plan.prefix));
  scales_.clear();
  for (const size_t i : plan.order) {
    const HfOutput& output = outputs[i];
    if (output.is_scale) {
      RETURN_IF_ERROR(WriteScales(*output.tensor, *file));
    } else if (output.dtype == DType::kE4M3) {
      RETURN_IF_ERROR(WriteFp8(*output.tensor, *file));
    } else {
      RETURN_IF_ERROR(WriteConverted(*output.tensor, output.dtype, *file));
    }
  }
  RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

absl::Status HfFileWriter::WriteConverted(const HfTensor& tensor, DType to, WritableFile& file) {
  const Parameter& p = table_[tensor.parameter];
  ASSIGN_OR_RETURN(const DType from, weights_.DTypeOfParameter(p));
  for (int64_t done = 0; done < tensor.elements(); done += kPieceElements) {
    const int64_t count = std::min(kPieceElements, tensor.elements() - done);
    read_.resize(static_cast<size_t>(count * SizeOf(from)));
    converted_.resize(static_cast<size_t>(count * SizeOf(to)));
    RETURN_IF_ERROR(weights_.Read(p, tensor.first_row * tensor.cols + done, count, read_.data()));
    ConvertElements(read_.data(), from, converted_.data(), to, count);
    RETURN_IF_ERROR(file.Append(converted_));
  }
  return absl::OkStatus();
}

absl::Status HfFileWriter::ForEachBand(
    const HfTensor& tensor, absl::FunctionRef<absl::Status(int64_t band, const float* values, int64_t rows)> use) {
  const Parameter& p = table_[tensor.parameter];
  ASSIGN_OR_RETURN(const DType from, weights_.DTypeOfParameter(p));
  std::vector<float> values;
  for (int64_t row = 0; row < tensor.rows; row += kFp8Block) {
    const int64_t rows = std::min(kFp8Block, tensor.rows - row), count = rows * tensor.cols;
    read_.resize(static_cast<size_t>(count * SizeOf(from)));
    converted_.resize(static_cast<size_t>(count * SizeOf(DType::kBF16)));
    values.resize(static_cast<size_t>(count));
    RETURN_IF_ERROR(weights_.Read(p, (tensor.first_row + row) * tensor.cols, count, read_.data()));
    ConvertElements(read_.data(), from, converted_.data(), DType::kBF16, count);
    ConvertElements(converted_.data(), DType::kBF16, reinterpret_cast<char*>(values.data()), DType::kF32, count);
    RETURN_IF_ERROR(use(row / kFp8Block, values.data(), rows));
  }
  return absl::OkStatus();
}

absl::Status HfFileWriter::WriteScales(const HfTensor& tensor, WritableFile& file) {
  const int64_t blocks = Fp8Blocks(tensor.cols);
  std::vector<float>& scales = scales_[&tensor];
  scales.resize(static_cast<size_t>(Fp8Blocks(tensor.rows) * blocks));
  RETURN_IF_ERROR(ForEachBand(tensor, [&](int64_t band, const float* values, int64_t rows) -> absl::Status {
    if (ScalesOfBand(values, rows, tensor.cols, power_of_two_scales_, scales.data() + band * blocks)) {
      return absl::OkStatus();
    }
    return absl::FailedPreconditionError(
        absl::StrCat(tensor.name, " holds a number that is not finite, for which FP8 has no scale; export bf16"));
  }));
  return file.Append({reinterpret_cast<const char*>(scales.data()), scales.size() * sizeof(float)});
}

absl::Status HfFileWriter::WriteFp8(const HfTensor& tensor, WritableFile& file) {
  const auto scales = scales_.find(&tensor);
  CHECK(scales != scales_.end());  // F32 comes before F8 in a file
  std::string codes;
  return ForEachBand(tensor, [&](int64_t band, const float* values, int64_t rows) {
    codes.resize(static_cast<size_t>(rows * tensor.cols));
    QuantizeBand(values, rows, tensor.cols, scales->second.data() + band * Fp8Blocks(tensor.cols),
                 reinterpret_cast<uint8_t*>(codes.data()));
    return file.Append(codes);
  });
}

}  // namespace shoestring
