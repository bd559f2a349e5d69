// Joins shards into one, or gives a plain Megatron shard its description, and checks the result.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "data/shard.h"
#include "data/shard_meta.h"

namespace shoestring {

struct MergeOptions {
  std::vector<std::string> inputs;  // prefixes, in order
  std::string output;               // prefix
  ShardOpenOptions open;            // `open.plain` for inputs without meta.json
  bool overwrite = false;
};

// Sequences and document index of the inputs one after the other; every checksum and id of the inputs is verified on
// the way. Inputs must agree in tokenizer, vocabulary, eos, packing, sequence length and rates. The seed is kept if all
// have the same, else 0; text bytes are 0 if they are unknown for one. A shard that is to be overwritten stands until
// the inputs are read. At the end the result is opened, verified whole and its totals compared with the sums of the
// inputs. INVALID_ARGUMENT for bad options, FAILED_PRECONDITION if a shard stands at the output, UNAVAILABLE while
// another process writes there, DATA_LOSS for inputs that are bad or do not fit.
absl::StatusOr<ShardMeta> MergeShards(FileSystem& fs, const MergeOptions& options);

}  // namespace shoestring
