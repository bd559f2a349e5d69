// Streams documents out of .txt and .jsonl files, packed or not, and refuses what is not clean text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/file_system.h"

namespace shoestring {

enum class TextSplit {
  kWholeFile,   // a .txt file is one document
  kBlankLines,  // cut after blank lines, once the document has `document_bytes`
  kBytes,       // cut after the line with which the document reaches `document_bytes`
};

struct TextReaderOptions {
  TextSplit split = TextSplit::kWholeFile;  // of .txt files; .jsonl has a document a line
  int64_t document_bytes = 0;               // least size of a document under kBlankLines and kBytes
  std::string json_key = "text";
  int64_t max_document_bytes = int64_t{1} << 28;  // a larger document is refused: it would have to fit in memory
};

struct Document {
  std::string text;  // UTF-8, may be empty
  int64_t line = 0;  // where it begins in the unpacked file, from 1
};

// Not thread-safe. Errors of content are DATA_LOSS and read "path:line: what; remedy".
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  // The next document; false at the end of the file. After an error the reader is spent.
  virtual absl::StatusOr<bool> Next(Document* document) = 0;
};

// The name decides: .txt or .jsonl, then perhaps .gz, .dz or .zst. INVALID_ARGUMENT for any other name or for a bad
// option.
absl::StatusOr<std::unique_ptr<DocumentReader>> OpenDocuments(FileSystem& fs, const std::string& path,
                                                              const TextReaderOptions& options);

}  // namespace shoestring
