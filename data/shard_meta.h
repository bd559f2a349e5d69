// What is written beside a shard: tokenizer, counts, settings and checksums (docs/formats/shards.md).
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"

namespace shoestring {

constexpr int64_t kChecksumBlockBytes = int64_t{64} << 20;
constexpr int64_t kMaxMetaBytes = int64_t{64} << 20;  // of meta.json: the checksums of 100 TB of tokens fit
constexpr int64_t kMaxVocabSize = 4194304;            // as of model.vocab_size in the config

enum class Packing { kConcatenate, kBestFit };

struct ShardSettings {
  uint64_t seed = 0;
  double fim_rate = 0.0;
  double token_split_rate = 0.0;
  double validation_fraction = 0.0;
  std::string role = "train";  // or "validation"

  bool operator==(const ShardSettings&) const = default;
};

struct ShardSource {
  std::string path;
  int64_t bytes = 0;

  bool operator==(const ShardSource&) const = default;
};

struct ShardMeta {
  std::string tokenizer_fingerprint;
  int64_t vocab_size = 0;  // ids are below it
  int32_t eos_id = 0;
  int64_t sequences = 0;
  int64_t documents = 0;  // of text
  int64_t tokens = 0;
  int64_t text_bytes = 0;  // 0: unknown
  Packing packing = Packing::kConcatenate;
  int64_t sequence_length = 0;  // inputs of a sample, for kBestFit; else 0
  std::string plan;             // hash of all that decided the content
  ShardSettings settings;
  std::vector<ShardSource> sources;
  // XXH3-128 of each block of 64 MiB, 32 hexadecimal digits. Empty for a plain Megatron shard.
  std::vector<std::string> bin_checksums;
  std::vector<std::string> idx_checksums;

  bool operator==(const ShardMeta&) const = default;
};

std::string BinPath(absl::string_view prefix);
std::string IdxPath(absl::string_view prefix);
std::string MetaPath(absl::string_view prefix);

absl::string_view PackingName(Packing packing);  // as in the config: "BEST_FIT", "CONCATENATE"

// XXH3-128 as 32 hexadecimal digits.
std::string ChecksumHex(absl::string_view bytes);

// JSON text, ending in a line break. Parse(Print(m)) == m.
std::string PrintShardMeta(const ShardMeta& meta);
// DATA_LOSS, naming the field, for anything that is not exactly such an object, its own checksum included: a field too
// many or said twice, too.
absl::StatusOr<ShardMeta> ParseShardMeta(absl::string_view json);
// NOT_FOUND if there is none, DATA_LOSS above kMaxMetaBytes; errors carry the path.
absl::StatusOr<ShardMeta> ReadShardMeta(FileSystem& fs, absl::string_view prefix);

// Checksums of consecutive blocks of a stream. Not thread-safe.
class BlockChecksummer {
 public:
  BlockChecksummer();
  ~BlockChecksummer();
  BlockChecksummer(const BlockChecksummer&) = delete;
  BlockChecksummer& operator=(const BlockChecksummer&) = delete;

  void Update(absl::string_view bytes);
  // Ends the last block, if it has any byte. Call once.
  std::vector<std::string> Finish();

 private:
  void EndBlock();

  XXH3_state_t* state_;
  int64_t block_bytes_ = 0;
  std::vector<std::string> checksums_;
};

}  // namespace shoestring
