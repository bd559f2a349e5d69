// A finished chunk of preparation on disk: tokens of consecutive documents, with the hash of the text they came from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"

namespace shoestring {

struct PartDocument {
  int64_t text_bytes = 0;
  int32_t tokens = 0;
  bool held_out = false;  // for validation
  bool fim = false;
};

struct EncodedPart {
  std::vector<PartDocument> documents;
  std::vector<int32_t> tokens;  // of all documents, one after the other
};

// What a part must have been made from to be used again: 32 hexadecimal digits each.
struct PartKey {
  std::string plan;
  std::string text_hash;
  friend bool operator==(const PartKey&, const PartKey&) = default;
};

// Durable after OK.
absl::Status WritePart(FileSystem& fs, const std::string& path, const PartKey& key, const EncodedPart& part);

// A part mapped into memory, its checksum verified. Thread-safe.
class PartReader {
 public:
  // NOT_FOUND if there is none; DATA_LOSS if it is not whole.
  static absl::StatusOr<std::unique_ptr<PartReader>> Open(FileSystem& fs, const std::string& path);

  const PartKey& key() const { return key_; }
  const std::vector<PartDocument>& documents() const { return documents_; }
  int64_t tokens() const { return tokens_; }
  // Copies tokens [first, first + count) of the part.
  void Read(int64_t first, int64_t count, int32_t* out) const;

 private:
  PartReader() = default;
  absl::Status Parse();

  std::unique_ptr<MappedFile> file_;
  PartKey key_;
  std::vector<PartDocument> documents_;
  int64_t tokens_ = 0;
  int64_t tokens_offset_ = 0;  // bytes
};

}  // namespace shoestring
