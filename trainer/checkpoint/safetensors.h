// safetensors files: a JSON header that names tensors, then their bytes; read as what they are, files from elsewhere.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "kernels/tensor.h"

namespace shoestring {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;  // as the reference implementation

// "F32", "BF16", ...; never null.
const char* SafetensorsName(DType dtype);
// What our kernels can hold; nothing for the others, whose bytes can still be skipped.
std::optional<DType> DTypeOfSafetensorsName(absl::string_view name);

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as the file says it
  std::vector<int64_t> shape;
  int64_t offset = 0;  // of the first byte, from the start of the file
  int64_t size_bytes = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
  int64_t data_offset = 0;  // of the first tensor, from the start of the file
};

// `json` is the header without its length; `data_bytes` is what follows it in the file. Checks everything that can be
// checked: known dtypes, sizes that are products of shapes, no duplicates, no unknown fields, no holes, no overlaps,
// no byte left over. Offsets of the result count from the start of a file in which the header begins at byte 8.
// Errors: DATA_LOSS.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json, int64_t data_bytes);

// An open file whose header has been checked. Reads by offset instead of mapping the file: a file that shrinks under us
// is then an error, not a signal. Thread-safe.
class SafetensorsFile {
 public:
  // Errors: DATA_LOSS for what is wrong with the content, with the path in front; else the file system's.
  static absl::StatusOr<SafetensorsFile> Open(FileSystem& fs, const std::string& path);

  const SafetensorsHeader& header() const { return header_; }
  const std::string& path() const { return path_; }
  // Reads `size` bytes from byte `offset` of the file on; OUT_OF_RANGE if the file has shrunk since.
  absl::Status ReadAt(int64_t offset, int64_t size, char* out) const { return file_->ReadAt(offset, size, out); }

 private:
  SafetensorsFile(std::string path, std::unique_ptr<ReadableFile> file, SafetensorsHeader header)
      : path_(std::move(path)), file_(std::move(file)), header_(std::move(header)) {}

  std::string path_;
  std::unique_ptr<ReadableFile> file_;
  SafetensorsHeader header_;
};

// What a file is going to hold. Names must be unique.
struct SafetensorsPlanEntry {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
};

struct SafetensorsPlan {
  std::string prefix;         // length and header: the first bytes of the file
  std::vector<size_t> order;  // then the tensors: indices into the entries, in the order in which bytes must follow
  int64_t size_bytes = 0;     // of the whole file
};

// The reference implementation's order: largest alignment first, then names; header padded with spaces to 8 bytes.
SafetensorsPlan PlanSafetensors(const std::vector<SafetensorsPlanEntry>& entries,
                                const std::map<std::string, std::string>& metadata);

}  // namespace shoestring
