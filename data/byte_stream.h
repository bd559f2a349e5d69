// A file read from front to back, unpacked on the way when its name ends in .gz, .dz or .zst.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"

namespace shoestring {

// Not thread-safe.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Puts between 1 and `size_bytes` bytes into `out` and returns how many; 0 only at the end.
  // DATA_LOSS, with the path, when a packed stream is truncated or damaged.
  virtual absl::StatusOr<int64_t> Read(char* out, int64_t size_bytes) = 0;
};

// The packing is taken from the name. `.gz` and `.dz`: any number of gzip members; `.zst`: any number of frames.
// `fs` must outlive the stream.
absl::StatusOr<std::unique_ptr<ByteStream>> OpenByteStream(FileSystem& fs, const std::string& path);

// The path without its packing suffix: "a.jsonl.gz" gives "a.jsonl".
absl::string_view WithoutPackingSuffix(absl::string_view path);

// Cuts a stream into lines, in memory of one line. Not thread-safe.
class LineReader {
 public:
  LineReader(std::unique_ptr<ByteStream> stream, std::string path, int64_t max_line_bytes);
  // The next line with its '\n' (the last may have none); false at the end. The view lives until the next call.
  // A byte-order mark at the start of the file is skipped. DATA_LOSS when a line is longer than the limit.
  absl::StatusOr<bool> Next(absl::string_view* line);
  int64_t line_number() const { return line_number_; }  // of the line last returned, from 1
  int64_t line_offset() const { return line_offset_; }  // of its first byte in the unpacked file

 private:
  absl::Status ReadMore();

  std::unique_ptr<ByteStream> stream_;
  std::string path_;
  int64_t max_line_bytes_;
  std::string buffer_;
  size_t begin_ = 0;    // first byte of buffer_ not yet returned
  size_t scanned_ = 0;  // no '\n' in [begin_, scanned_)
  bool at_end_ = false;
  bool started_ = false;
  int64_t buffer_offset_ = 0;  // of buffer_[0] in the unpacked file
  int64_t line_number_ = 0;
  int64_t line_offset_ = 0;
};

}  // namespace shoestring
