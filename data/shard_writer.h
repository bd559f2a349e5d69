// Writes a shard: Megatron's .bin and .idx, then meta.json as the mark that both are whole.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/file_system.h"
#include "data/output_file.h"
#include "data/shard_meta.h"

namespace shoestring {

// Bytes of a token on disk, as Megatron chooses them: 2 (u16) below a vocabulary of 65,500, else 4 (i32).
int TokenBytesFor(int64_t vocab_size);

// Not thread-safe. Memory: 4 bytes a sequence and 8 a document. `fs` must outlive the writer.
class ShardWriter {
 public:
  // `meta` gives tokenizer, vocabulary, packing, plan, settings and sources; the writer fills in counts and checksums.
  // A shard that stands under the prefix is not touched before RemoveOldMeta() or Finish().
  static absl::StatusOr<std::unique_ptr<ShardWriter>> Create(FileSystem& fs, const std::string& prefix, ShardMeta meta);

  // Appends one sequence of at least one token, of ids in 0 .. vocab_size-1.
  absl::Status AddSequence(absl::Span<const int32_t> tokens);
  // The sequences since the last call form an entry of the document index. At least one.
  void EndDocument();
  // Puts tokens and index on the disk, still under temporary names; nothing can be added after it.
  absl::Status Seal();
  // Removes the meta.json of an older shard, so that no moment joins old description and new tokens.
  absl::Status RemoveOldMeta();
  // Does both if that was not done. `documents` and `text_bytes` of text behind the tokens. After OK the shard is
  // durable. Returns its description.
  absl::StatusOr<ShardMeta> Finish(int64_t documents, int64_t text_bytes);

  int64_t tokens() const { return meta_.tokens; }
  int64_t sequences() const { return static_cast<int64_t>(lengths_.size()); }

 private:
  ShardWriter(FileSystem& fs, std::string prefix, ShardMeta meta, std::unique_ptr<OutputFile> bin);
  absl::StatusOr<std::unique_ptr<OutputFile>> WriteIndex() const;

  FileSystem& fs_;
  std::string prefix_;
  ShardMeta meta_;
  int token_bytes_;
  std::unique_ptr<OutputFile> bin_;
  std::unique_ptr<OutputFile> idx_;  // null before Seal()
  std::string scratch_;
  std::vector<int32_t> lengths_;
  std::vector<int64_t> document_index_ = {0};
};

}  // namespace shoestring
