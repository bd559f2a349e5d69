// Turns text into token shards: in parallel, resumable, the same bytes for any number of threads and interruptions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "data/shard_meta.h"
#include "data/text_reader.h"
#include "data/token_encoder.h"

namespace shoestring {

struct PrepareOptions {
  std::vector<std::string> inputs;  // .txt or .jsonl, packed or not; their order numbers the documents
  TextReaderOptions reader;
  std::string train_prefix;
  // Written when validation_fraction is above 0; otherwise looked at, that nothing held out there is trained on.
  std::string validation_prefix;
  double validation_fraction = 0.0;     // share of documents held out, [0, 1)
  Packing packing = Packing::kBestFit;  // of the training shard; the validation shard is always concatenated
  int64_t sequence_length = 0;          // inputs of a sample; for kBestFit
  uint64_t seed = 0;
  double fim_rate = 0.1;
  double token_split_rate = 0.0;
  int threads = 1;
  // Where to write the raw text of either side, documents back to back; empty: nowhere.
  std::string train_text_path, validation_text_path;
  // Replace shards that were made by another plan, and files that stand where a text is to go. Otherwise they are
  // refused.
  bool overwrite = false;
  int64_t chunk_bytes = int64_t{4} << 20;    // text in a part; the unit of work and of resuming
  int64_t window_tokens = int64_t{1} << 28;  // packed at once; bounds memory
};

enum class PrepareStage { kEncode, kPack };

struct PrepareProgress {
  PrepareStage stage = PrepareStage::kEncode;
  int64_t chunks = 0;        // done so far in this stage
  int64_t chunks_total = 0;  // known in kPack only, else 0
  int64_t chunks_reused = 0;
  int64_t documents = 0;
  int64_t text_bytes = 0;
};

struct PrepareSummary {
  ShardMeta train;
  ShardMeta validation;        // tokens is 0 when nothing is held out
  bool already_there = false;  // the shards of this plan stood; nothing was done. Then the counts below are 0.
  int64_t chunks = 0;
  int64_t chunks_reused = 0;
  int64_t fim_documents = 0;
  int64_t cut_documents = 0;    // longer than a sequence, so packed in pieces
  int64_t empty_documents = 0;  // skipped
};

// Called on the calling thread, once a chunk.
using PrepareCallback = std::function<void(const PrepareProgress&)>;

// Format, algorithm and rules: docs/formats/shards.md. After OK both shards and texts are durable. After any failure,
// or a kill, a second call goes on where the first stopped. What `overwrite` replaces stands until all that replaces it
// lies whole beside it. Errors: INVALID_ARGUMENT (options), DATA_LOSS (text), FAILED_PRECONDITION (other shards or
// files stand there, or a validation shard that would be training text now), UNAVAILABLE (another preparation or merge
// writes there), or the file system's. `progress` may be empty.
absl::StatusOr<PrepareSummary> Prepare(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options,
                                       const PrepareCallback& progress);

// Where finished parts lie until the shards stand; after a failure too, if there are any.
std::string PartsDirectory(const PrepareOptions& options);

// One line a problem of the options alone, no file opened; OK if none.
absl::Status CheckPrepareOptions(const TokenEncoder& encoder, const PrepareOptions& options);

// Hash of everything that decides the content of the shards: settings, tokenizer, and of each input path, size, first
// and last MiB.
absl::StatusOr<std::string> PreparePlan(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options);

}  // namespace shoestring
