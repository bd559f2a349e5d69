// First half of preparation: cuts the text into chunks and leaves a durable part file for each.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "data/part_file.h"
#include "data/prepare.h"

namespace shoestring {

struct ChunkDocument {
  std::string text;
  std::string origin;  // "path:line"
};

// Consecutive documents; their ids are first_document, first_document + 1, ...
struct TextChunk {
  int64_t index = 0;
  int64_t first_document = 0;
  std::vector<ChunkDocument> documents;
};

// Reads the inputs in order and cuts them into chunks; a pure function of inputs and options. Not thread-safe.
class ChunkReader {
 public:
  ChunkReader(FileSystem& fs, const PrepareOptions& options) : fs_(fs), options_(options) {}
  // False when there is no further document.
  absl::StatusOr<bool> Next(TextChunk* chunk);
  int64_t empty_documents() const { return empty_documents_; }

 private:
  FileSystem& fs_;
  const PrepareOptions& options_;
  std::unique_ptr<DocumentReader> reader_;  // of inputs[next_input_ - 1]
  size_t next_input_ = 0;
  int64_t next_chunk_ = 0;
  int64_t next_document_ = 0;
  int64_t empty_documents_ = 0;
};

bool IsHeldOut(const PrepareOptions& options, int64_t document_id);

// Tokens of one document, eos at its end.
absl::StatusOr<std::vector<int32_t>> EncodeDocument(const TokenEncoder& encoder, const PrepareOptions& options,
                                                    absl::string_view text, int64_t document_id, PartDocument* record);

std::string PartPath(absl::string_view parts_directory, int64_t chunk);

struct EncodeOutcome {
  std::vector<std::string> text_hashes;  // of each chunk: the key of its part
  int64_t chunks_reused = 0;
  int64_t empty_documents = 0;
};

// Sees every document in order, on the calling thread.
using DocumentSink = std::function<absl::Status(int64_t document_id, absl::string_view text)>;

// Leaves a part for each chunk in `parts_directory`, which exists. With one thread all happens on the calling one, in
// order.
absl::StatusOr<EncodeOutcome> EncodeChunks(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options,
                                           const std::string& plan, const std::string& parts_directory,
                                           const DocumentSink& sink, const PrepareCallback& progress);

}  // namespace shoestring
