// Opens a shard, believes nothing it says, and reads tokens from it at any place.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "data/shard_format.h"
#include "data/shard_meta.h"

namespace shoestring {

// What must be said of a Megatron shard that has no meta.json.
struct PlainShard {
  std::string tokenizer_fingerprint;
  int64_t vocab_size = 0;
  int32_t eos_id = 0;
};

struct ShardOpenOptions {
  // Refuse a shard of another tokenizer. Empty: any, for tools that do not interpret the ids.
  std::string tokenizer_fingerprint;
  // Accept a shard without meta.json as this.
  std::optional<PlainShard> plain;
};

// A memory-mapped shard. Thread-safe. Everything wrong with the content is DATA_LOSS, with path and remedy.
class ShardReader {
 public:
  static absl::StatusOr<std::unique_ptr<ShardReader>> Open(FileSystem& fs, const std::string& prefix,
                                                           const ShardOpenOptions& options);

  const std::string& prefix() const { return prefix_; }
  const ShardMeta& meta() const { return meta_; }
  // Hash of what the shard holds, independent of where it lies: the name under which its order of samples is drawn.
  const std::string& content_hash() const { return content_hash_; }

  int64_t tokens() const { return tokens_; }
  int64_t sequences() const { return sequences_; }
  int64_t index_documents() const { return document_entries_ - 1; }  // entries of the document index
  int32_t SequenceLength(int64_t sequence) const;                    // tokens
  int64_t SequenceStart(int64_t sequence) const;                     // first token, counted over the shard
  int64_t DocumentStart(int64_t document) const;  // first sequence; document == index_documents() gives sequences()

  // Copies tokens [first, first + count) to `out`; the range must lie in the shard. DATA_LOSS when a block's checksum
  // is wrong or an id is not below the vocabulary size.
  absl::Status Read(int64_t first, int64_t count, int32_t* out) const;
  // Verifies every block of .bin and every id.
  absl::Status VerifyAll() const;

 private:
  ShardReader() = default;
  absl::Status OpenFiles(FileSystem& fs, const ShardOpenOptions& options);
  absl::Status LoadMeta(FileSystem& fs, const ShardOpenOptions& options);
  absl::Status ParseHeader();
  absl::Status CheckSequences() const;
  absl::Status CheckDocuments() const;
  absl::Status CheckAgainstMeta() const;
  std::string ContentIdentity() const;
  absl::Status VerifyBlock(int64_t block) const;
  absl::Status VerifyBytes(int64_t first_byte, int64_t count_bytes) const;
  absl::Status IndexError(absl::string_view what) const;
  template <typename Stored>
  absl::Status Convert(int64_t first, int64_t count, int32_t* out) const;

  std::string prefix_;
  ShardMeta meta_;
  bool has_meta_ = false;
  std::string content_hash_;
  std::unique_ptr<MappedFile> bin_, idx_;
  TokenType type_ = TokenType::kU16;
  int64_t token_bytes_ = 0;
  int64_t tokens_ = 0;
  int64_t sequences_ = 0;
  int64_t document_entries_ = 0;
  std::unique_ptr<std::atomic<bool>[]> verified_;  // one a block of .bin
};

}  // namespace shoestring
