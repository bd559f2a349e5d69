// Looks at the tokens of a shard the way a careful person would before training on them for a night.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/shard.h"

namespace shoestring {

struct TokenCount {
  int32_t id = 0;
  int64_t count = 0;
};

struct DataStat {
  int64_t tokens = 0;
  int64_t sequences = 0;
  // Pieces: whole documents, and the parts of those that packing cut. A piece ends behind eos, or with its sequence
  // where packing cuts.
  int64_t pieces = 0;
  double entropy_bits = 0.0;              // of the distribution of single tokens
  double special_share = 0.0;             // of the tokens
  double never_seen_share = 0.0;          // of the vocabulary
  double bytes_per_token = 0.0;           // 0: unknown
  std::vector<TokenCount> top;            // most frequent first
  std::vector<int64_t> piece_lengths;     // [i]: pieces of 2^i to 2^(i+1) - 1 tokens
  std::vector<int64_t> sequence_lengths;  // likewise
  std::vector<std::string> warnings;      // what looks like a wrong tokenizer or broken text
};

struct DataStatOptions {
  int64_t top = 20;
  // Which ids are special; empty: eos alone.
  std::function<bool(int32_t id)> is_special;
};

// Reads all tokens, so verifies all ids and checksums. Memory: 8 bytes an id of the vocabulary.
absl::StatusOr<DataStat> ComputeDataStat(const ShardReader& shard, const DataStatOptions& options);

// Some forty lines of text. `spell` gives the text of a token; may be empty.
std::string FormatDataStat(const ShardMeta& meta, const DataStat& stat,
                           const std::function<std::string(int32_t id)>& spell);

}  // namespace shoestring
