// From samples to what the model reads: token ids, targets and visibility of a whole step, prepared one step ahead on a
// thread of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/token_source.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/mesh.h"
#include "parallel/stage.h"

namespace shoestring {

struct BatchShape {
  int64_t sequence_length = 0;  // S
  int64_t max_sequences = 0;    // of a batch
  int mtp_depth = 0;            // D
  int64_t vocab_size = 0;       // ids are below it
  bool document_mask = false;   // attention stays inside a document
  int32_t eos_id = 0;           // ends a document; also stands where an input has no token

  int64_t row_tokens() const { return sequence_length + 1 + mtp_depth; }
  int rows() const { return 2 * (mtp_depth + 1) + (document_mask ? 1 : 0); }
};

// first_visible [length]: where the document begins that token t of ids [length] belongs to. An eos ends its own.
void WriteFirstVisible(const int32_t* ids, int64_t length, int32_t eos_id, int32_t* first_visible);

// The samples of a batch: those of a rank's lanes, one run for each direction of its pipeline.
struct SampleRuns {
  IndexRange runs[2];
  int64_t sequences() const { return runs[0].count + runs[1].count; }
  static SampleRuns One(int64_t first, int64_t count) { return {{{first, count}, {}}}; }
  friend bool operator==(const SampleRuns&, const SampleRuns&) = default;
};

// A batch on the host: rows of [sequences * S] ids each. Rows 0..D: ids of the main model and of each MTP module; rows
// D+1..2D+1: targets likewise (-1: none); the last, with a document mask: first position that a token may see.
struct HostBatch {
  SampleRuns runs;               // where the first sequences come from
  int64_t sequences = 0;         // padding included
  std::vector<int32_t> samples;  // as the source wrote them
  std::vector<int32_t> values;   // [rows, max_sequences * S]
};

// Fills `batch` (whose vectors are sized on first use) with these samples, in order.
// DATA_LOSS names the sample whose id is outside the vocabulary: no kernel checks it again.
absl::Status PrepareBatch(TokenSource& source, const BatchShape& shape, const SampleRuns& samples, HostBatch& batch);

// Adds sequences without a single target until there are `sequences` of them.
void PadBatch(const BatchShape& shape, int64_t sequences, HostBatch& batch);
// Targets of the main model in the batch.
int64_t CountTargets(const BatchShape& shape, const HostBatch& batch);

// Prepares the next batch while the present one is trained on, on a thread that the first Prefetch starts. Not
// thread-safe itself. What Take returns does not depend on whether or when it was asked for ahead.
class BatchPrefetcher {
 public:
  // `source` must outlive this object and is used by its thread alone.
  BatchPrefetcher(TokenSource& source, const BatchShape& shape);
  ~BatchPrefetcher();
  BatchPrefetcher(const BatchPrefetcher&) = delete;
  BatchPrefetcher& operator=(const BatchPrefetcher&) = delete;

  // Asks for a batch ahead; what was asked for before and not taken is dropped.
  void Prefetch(const SampleRuns& samples);
  // The batch, valid until the next Take; waits for it, or prepares it if it was not asked for. Errors of the source
  // come with the samples' numbers.
  absl::StatusOr<const HostBatch*> Take(const SampleRuns& samples);

 private:
  void Loop();

  TokenSource& source_;
  const BatchShape shape_;
  HostBatch batches_[2];
  int ready_ = 0;  // index of the batch that the thread writes, or has written
  std::mutex mutex_;
  std::condition_variable changed_;
  bool wanted_ = false;  // the thread has something to do
  bool stop_ = false;
  SampleRuns samples_;  // asked for; empty when they are taken
  absl::Status fill_status_;
  std::vector<std::thread> threads_;  // one, once there was a batch to prefetch
};

// A step's batch on the device.
class DeviceBatch {
 public:
  DeviceBatch(Arena& arena, const BatchShape& shape, int64_t micro_batch_sequences);
  // Positions do not change within a phase.
  void WritePositions(Backend& backend, Stream& stream);
  void Upload(Backend& backend, Stream& stream, const HostBatch& batch);
  // Views of micro-batch `index` of the batch; `tokens` is valid as long as this object.
  MicroBatchTokens MicroBatch(int64_t index) const;

 private:
  const BatchShape shape_;
  const int64_t tokens_;  // of a micro-batch
  View values_;           // [rows, max_sequences * S] i32
  View positions_;        // [1, tokens_] i32
};

}  // namespace shoestring
