// The tokens of a run: opens tokenizer and shards as its config names them, and refuses what does not fit together.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "configs/schema/run.pb.h"
#include "data/tokenizer.h"
#include "trainer/train_loop.h"

namespace shoestring {

struct RunData {
  TrainData data;         // opens the shards again at each phase
  std::string data_hash;  // of what the batches are made of, and in which order
  std::string tokenizer_fingerprint;
  std::string blend_table;  // for the start of a run
};

// The config's tokenizer, checked against its model: enough rows for the ids, and the same begin and end of a document.
absl::StatusOr<Tokenizer> OpenTokenizer(FileSystem& fs, const config::RunConfig& config);

// Opens and checks every shard of every phase. Errors as BlendedSource::Open, or the file system's. `fs` outlives the
// result.
absl::StatusOr<RunData> OpenRunData(FileSystem& fs, const config::RunConfig& config);

}  // namespace shoestring
