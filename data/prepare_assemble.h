// Second half of preparation: packs the parts into the two shards.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "data/prepare.h"

namespace shoestring {

struct AssembleOutcome {
  ShardMeta train;
  ShardMeta validation;
  int64_t fim_documents = 0;
  int64_t cut_documents = 0;
};

// `train` and `validation` describe the shards but for counts and checksums; an empty validation prefix means none.
// A part for each text hash; one of another plan or text, and a shard that would be empty, is DATA_LOSS. All
// that stood still stands until both shards lie whole under temporary names; then `commit_texts` is called, once.
absl::StatusOr<AssembleOutcome> AssembleShards(FileSystem& fs, const PrepareOptions& options, const ShardMeta& train,
                                               const ShardMeta& validation, const std::string& parts_directory,
                                               const std::vector<std::string>& text_hashes,
                                               const std::function<absl::Status()>& commit_texts,
                                               const PrepareCallback& progress);

}  // namespace shoestring
